"""Chosen weights of a module, as a plain build makes them, without the rest of the module.

The constructor runs once on fake tensors. Every ATen call is noted; random ones also draw, on a
scratch tensor, so that the generator goes on as in a plain build. What a wanted tensor needs is
then played back, with each random call's own generator state.
"""

import contextlib
import random
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from baechi.backends.pytorch.effects import changed_by, fills, gives_plain, gives_views
from baechi.backends.pytorch.tape import Call, Given, Tape, Unrecordable, Window, generator_of
from baechi.errors import BaechiError
from baechi.frontends.pytorch.modules import find_weights

__all__ = ["Recording", "materialize", "record"]

aten = torch.ops.aten
_READERS = (Tensor.tolist, Tensor.numpy, Tensor.__array__)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each ATen call on fake tensors; calls on real ones, which are few and small, are made."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tape = tape
        self._fake = FakeTensorMode()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        leaves, spec = pytree.tree_flatten((args, kwargs or {}))
        fakes = [t for t in leaves if isinstance(t, FakeTensor)]
        tensors = [t for t in leaves if isinstance(t, Tensor)]
        device = torch.device((kwargs or {}).get("device") or "cpu").type
        if len(tensors) > len(fakes) == 0 or device == "meta":
            return func(*args, **(kwargs or {}))
        if device != "cpu":
            raise Unrecordable(f"a tensor on {device}")
        if gives_views(func):
            return self._faked(func, leaves, spec)
        written = changed_by(func, args, kwargs or {})
        if gives_plain(func) or any(not isinstance(t, FakeTensor) for t in written):
            return self._really(func, leaves, spec)
        return self._note(func, leaves, spec, written)

    def value(self, tensor: Tensor) -> Tensor:
        """The content of a fake tensor now."""
        return self._tape.values([self._tape.window(tensor)])[0]

    def _note(self, func: Any, leaves: list[Any], spec: pytree.TreeSpec, written: Sequence[Tensor]) -> Any:
        is_random = torch.Tag.nondeterministic_seeded in func.tags
        state = self._draw(func, leaves, spec) if is_random else None
        noted = tuple(self._operand(leaf) for leaf in leaves)
        try:
            result = self._faked(func, leaves, spec)
        except (RuntimeError, NotImplementedError):  # its shape depends on values, or there is no fake of it
            if written or is_random:
                raise
            return self._really(func, leaves, spec)
        self._tape.add(self._call(func, leaves, spec, noted, written, result, state))
        return result

    def _call(
        self,
        func: Any,
        leaves: Sequence[Any],
        spec: pytree.TreeSpec,
        noted: tuple[Any, ...],
        written: Sequence[Tensor],
        result: Any,
        state: Tensor | None,
    ) -> Call:
        flat = pytree.tree_leaves(result)
        made = tuple(
            (i, self._tape.window(t)) for i, t in enumerate(flat) if isinstance(t, Tensor) and not self._tape.knows(t)
        )
        changed = [self._tape.window(t) for t in written]
        reads = [leaf.storage for leaf in noted if isinstance(leaf, Window)]
        overwrites = {window.storage for _, window in made}
        if fills(func):
            if isinstance(leaves[0], FakeTensor):
                reads = reads[1:]
            overwrites |= {w.storage for w, t in zip(changed, written, strict=True) if self._covers(w, t)}
        writes = dict.fromkeys(w.storage for w in (*(window for _, window in made), *changed))
        default = torch.get_default_dtype()
        return Call(func, noted, spec, made, tuple(reads), tuple(writes), frozenset(overwrites), default, state)

    def _covers(self, window: Window, tensor: Tensor) -> bool:
        return tensor.is_contiguous() and tensor.numel() * tensor.itemsize == self._tape.nbytes(window.storage)

    def _operand(self, leaf: Any) -> Any:
        if isinstance(leaf, FakeTensor):
            return self._tape.window(leaf)
        return Given(leaf, leaf._version) if isinstance(leaf, Tensor) else leaf

    def _faked(self, func: Any, leaves: Sequence[Any], spec: pytree.TreeSpec) -> Any:
        """The call on fake tensors, which draw nothing."""
        with self._fake:
            fakes = [_fake_like(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            args, kwargs = pytree.tree_unflatten(fakes, spec)
            if "generator" in kwargs:
                kwargs = {**kwargs, "generator": None}
            result = func(*args, **kwargs)
        # Parameters that something refers to weakly cannot be swapped, as Module.half() does.
        self._fake.fake_tensor_converter.tensor_memo.clear()
        return result

    def _really(self, func: Any, leaves: Sequence[Any], spec: pytree.TreeSpec) -> Any:
        """The call on values: those of fake tensors are played back first."""
        if any(isinstance(t, FakeTensor) for t in changed_by(func, *pytree.tree_unflatten(list(leaves), spec))):
            raise Unrecordable(f"{func} changes a tensor and gives a number")
        real = [self.value(leaf) if isinstance(leaf, FakeTensor) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(real, spec)
        return func(*args, **kwargs)

    def _draw(self, func: Any, leaves: Sequence[Any], spec: pytree.TreeSpec) -> Tensor:
        """Advance the generator as the call does; its state before."""
        real = list(leaves)
        if fills(func):
            real[0] = torch.empty_strided(real[0].shape, real[0].stride(), dtype=real[0].dtype, device="cpu")
        real = [self.value(leaf) if isinstance(leaf, FakeTensor) else leaf for leaf in real]
        args, kwargs = pytree.tree_unflatten(real, spec)
        state = generator_of(kwargs).get_state()
        func(*args, **kwargs)
        return state


class _Readers(TorchFunctionMode):
    """Calls that read or copy a tensor below ATen."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if args and isinstance(args[0], FakeTensor):
            if func in _READERS:
                return func(self._recorder.value(args[0]), *args[1:], **(kwargs or {}))
            if func is Tensor.__deepcopy__:
                return _deep_copy(args[0], args[1])
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True, eq=False)
class Recording:
    """A module as it was built, and how to get its weights.

    Attributes:
        module: the module, its tensors fake ones, or real ones when `whole`.
        whole: whether the constructor could not be recorded, so that the module was built plainly.
    """

    module: nn.Module
    whole: bool
    _tape: Tape

    def values(self, names: Collection[str]) -> dict[str, Tensor]:
        """The values of parameters and buffers after the build, each with memory of its own.

        Raises:
            BaechiError: B612 on a name that the module does not have.
        """
        weights = find_weights(self.module)
        every: Mapping[str, Tensor] = {**weights.buffers, **weights.parameters}
        for name in names:
            if name not in every:
                raise BaechiError("B612", f"the model has no parameter or buffer '{name}'")
        return dict(zip(names, self.contents([every[name] for name in names]), strict=True))

    def contents(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The same for any tensors that the constructor made, such as plain attributes of a module."""
        fakes = [t for t in tensors if isinstance(t, FakeTensor)]
        played = iter(self._tape.values([self._tape.window(t) for t in fakes]))
        return [_own(next(played) if isinstance(t, FakeTensor) else t.detach()) for t in tensors]


def materialize(build: Callable[[], nn.Module], names: Collection[str]) -> dict[str, Tensor]:
    """Values of the named parameters and buffers, bit for bit those of ``build()`` on the CPU.

    Memory holds the named tensors and, while the constructor is run, its largest random one. The
    default generator ends as after a plain build. A constructor that cannot be recorded runs
    plainly, with the whole module in memory for that time; `record` tells.

    Args:
        build: makes the module; called once, or twice when it cannot be recorded.
        names: first names as in ``named_parameters()`` and ``named_buffers()``.

    Raises:
        BaechiError: B612 on a name that the module does not have.

    Example:
        >>> sorted(materialize(lambda: nn.Linear(2, 3), ["bias"]))
        ['bias']
    """
    return record(build).values(names)


def record(build: Callable[[], nn.Module]) -> Recording:
    """Build a module without memory for its weights, ready to give any of them.

    Args:
        build: makes the module; called once, or twice when it cannot be recorded.

    Example:
        >>> recording = record(lambda: nn.Linear(2, 3))
        >>> recording.whole, tuple(recording.values(["weight"])["weight"].shape)
        (False, (3, 2))
    """
    tape = Tape()
    recorder = _Recorder(tape)
    with contextlib.ExitStack() as undo:
        undo.enter_context(_put_back())
        try:
            with _Readers(recorder), recorder:
                module = build()
            _check(module, tape)
        except Exception:  # noqa: BLE001  the constructor on fake tensors can fail in any way: built plainly, it tells
            undo.close()
            return Recording(build(), True, Tape())
        undo.pop_all()
    return Recording(module, False, tape)


@contextlib.contextmanager
def _put_back() -> Iterator[None]:
    """At the end, the state of the random generators and the default dtype are as they were."""
    state, plain, default = torch.get_rng_state(), random.getstate(), torch.get_default_dtype()
    numpy = sys.modules.get("numpy")
    numbers = numpy.random.get_state() if numpy else None
    yield
    torch.set_rng_state(state)
    random.setstate(plain)
    torch.set_default_dtype(default)
    if numpy:
        numpy.random.set_state(numbers)


def _check(module: nn.Module, tape: Tape) -> None:
    weights = find_weights(module)
    for tensor in (*weights.parameters.values(), *weights.buffers.values()):
        if isinstance(tensor, FakeTensor):
            tape.window(tensor)


def _fake_like(tensor: Tensor) -> Tensor:
    if isinstance(tensor, FakeTensor):
        return tensor
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")


def _own(tensor: Tensor) -> Tensor:
    """The tensor without a larger storage behind it."""
    held = tensor.untyped_storage().nbytes()
    return tensor if held == tensor.numel() * tensor.itemsize else tensor.clone()


def _deep_copy(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    if id(tensor) not in memo:
        copied = tensor.detach().clone()
        if isinstance(tensor, nn.Parameter):
            copied = nn.Parameter(copied, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = copied
    found: Tensor = memo[id(tensor)]
    return found
