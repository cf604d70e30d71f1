"""ATen calls in order, and the playing back of those that a tensor depends on."""

import bisect
import contextlib
import heapq
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

__all__ = ["Call", "Given", "Tape", "Unrecordable", "Window", "generator_of"]


class Unrecordable(RuntimeError):
    """The constructor does what cannot be noted and played back."""


@dataclass(frozen=True, slots=True)
class Window:
    """A tensor as a view of a storage."""

    storage: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """A tensor that was there before the constructor, or that it made from plain numbers."""

    tensor: Tensor
    version: int


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One ATen call.

    Args:
        function: what is called.
        leaves: its flattened arguments, tensors as `Window` or `Given`.
        spec: how to rebuild (args, kwargs).
        made: by position in the flattened result, the tensors with a new storage.
        reads: storages whose content matters.
        writes: storages that are made or changed.
        overwrites: those of `writes` of which every byte is set.
        default: the default dtype at the call.
        state: the generator's state before a random call.
    """

    function: torch._ops.OpOverload[..., Any]
    leaves: tuple[Any, ...]
    spec: pytree.TreeSpec
    made: tuple[tuple[int, Window], ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    overwrites: frozenset[int]
    default: torch.dtype
    state: Tensor | None


class Tape:
    """Calls in order, and how to play back those that a tensor depends on."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._writers: dict[int, list[int]] = defaultdict(list)
        self._storages: dict[int, torch.UntypedStorage] = {}

    def window(self, tensor: Tensor) -> Window:
        """The fake tensor's place; its storage is kept, so that the number stays its own."""
        if tensor.layout != torch.strided or tensor.is_conj() or tensor.is_neg():
            raise Unrecordable("a tensor without a plain storage")
        storage = tensor.untyped_storage()
        self._storages.setdefault(storage._cdata, storage)
        return Window(storage._cdata, tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()), tensor.dtype)

    def knows(self, tensor: Tensor) -> bool:
        """Whether the fake tensor's storage has been seen."""
        return tensor.untyped_storage()._cdata in self._storages

    def nbytes(self, storage: int) -> int:
        """Bytes of a storage."""
        return self._storages[storage].nbytes()

    def add(self, call: Call) -> None:
        """Note a call."""
        for storage in call.writes:
            self._writers[storage].append(len(self.calls))
        self.calls.append(call)

    def values(self, windows: Sequence[Window]) -> list[Tensor]:
        """Play back what these tensors depend on."""
        kept = {w.storage for w in windows}
        needed = self._slice(kept)
        last = {s: i for i in needed for s in (*self.calls[i].reads, *self.calls[i].writes)}
        table: dict[int, torch.UntypedStorage] = {}
        with _aside():
            for i in needed:
                self._play(self.calls[i], table)
                for storage in (*self.calls[i].reads, *self.calls[i].writes):
                    if last[storage] == i and storage not in kept:
                        table.pop(storage, None)
            return [self._tensor(w, table) for w in windows]

    def _slice(self, storages: Collection[int]) -> list[int]:
        """The calls that the content of these storages depends on, in order."""
        needed: set[int] = set()
        heap: list[int] = []

        def want(storage: int, before: int) -> None:
            writers = self._writers.get(storage, [])
            for i in reversed(writers[: bisect.bisect_left(writers, before)]):
                if i not in needed:
                    needed.add(i)
                    heapq.heappush(heap, -i)
                if storage in self.calls[i].overwrites:
                    return

        for storage in storages:
            want(storage, len(self.calls))
        while heap:
            i = -heapq.heappop(heap)
            for storage in self.calls[i].reads:
                want(storage, i)
        return sorted(needed)

    def _play(self, call: Call, table: dict[int, torch.UntypedStorage]) -> None:
        leaves = [self._leaf(leaf, table) for leaf in call.leaves]
        args, kwargs = pytree.tree_unflatten(leaves, call.spec)
        if torch.get_default_dtype() != call.default:
            torch.set_default_dtype(call.default)
        with _drawing_from(call.state, kwargs):
            result = pytree.tree_leaves(call.function(*args, **kwargs))
        for position, window in call.made:
            table[window.storage] = _shaped(result[position], window).untyped_storage()

    def _leaf(self, leaf: Any, table: dict[int, torch.UntypedStorage]) -> Any:
        if isinstance(leaf, Window):
            return self._tensor(leaf, table)
        if not isinstance(leaf, Given):
            return leaf
        if leaf.tensor._version != leaf.version:
            raise Unrecordable("a tensor that was read and then changed")
        return leaf.tensor

    def _tensor(self, window: Window, table: dict[int, torch.UntypedStorage]) -> Tensor:
        """A storage without a writer is memory that nobody has filled."""
        if window.storage not in table:
            table[window.storage] = _memory(self.nbytes(window.storage))
        empty = torch.empty(0, dtype=window.dtype, device="cpu")
        return empty.set_(table[window.storage], window.offset, window.size, window.stride)


def generator_of(kwargs: Mapping[str, Any]) -> torch.Generator:
    """The generator that a call with these arguments draws from."""
    return kwargs.get("generator") or torch.default_generator


@contextlib.contextmanager
def _aside() -> Iterator[None]:
    """Play back beside the running constructor: no modes, its default dtype put back."""
    default = torch.get_default_dtype()
    try:
        with _disable_current_modes(), torch.no_grad():
            yield
    finally:
        torch.set_default_dtype(default)


@contextlib.contextmanager
def _drawing_from(state: Tensor | None, kwargs: Mapping[str, Any]) -> Iterator[None]:
    if state is None:
        yield
        return
    generator = generator_of(kwargs)
    now = generator.get_state()
    generator.set_state(state)
    try:
        yield
    finally:
        generator.set_state(now)


def _shaped(tensor: Tensor, window: Window) -> Tensor:
    """The tensor in the strides that the fake one has."""
    if tensor.stride() == window.stride and tensor.storage_offset() == window.offset:
        return tensor
    storage = _memory(_extent(window))
    empty = torch.empty(0, dtype=window.dtype, device="cpu")
    return empty.set_(storage, window.offset, window.size, window.stride).copy_(tensor)


def _memory(nbytes: int) -> torch.UntypedStorage:
    return torch.empty(nbytes, dtype=torch.uint8, device="cpu").untyped_storage()


def _extent(window: Window) -> int:
    """Bytes from the start of the storage to the last element."""
    last = window.offset + sum((n - 1) * s for n, s in zip(window.size, window.stride, strict=True))
    return 0 if 0 in window.size else (last + 1) * window.dtype.itemsize
