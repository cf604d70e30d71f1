"""A graph's ops and tensors as columns: numbers by index instead of objects by name."""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from baechi.ir.op import Op

__all__ = ["Columns", "columns_of", "digest_of"]

Ints = NDArray[Any]
Floats = NDArray[np.float64]


class Columns(NamedTuple):
    """Ops in program order; tensors numbered by the op that makes them, in the order in which it does.

    Sizes that 64 bits cannot count are kept as Python's integers.

    Attributes:
        flops, moved_bytes: (ops,) as in `Op`.
        seconds: (ops,) declared time, nan where there is none.
        temp_bytes, persistent_bytes: (ops,) as in `Op`.
        out_ptr: (ops + 1,) tensors of each op: ``out_ptr[i]`` up to ``out_ptr[i + 1]``.
        in_ptr, in_t: tensors that each op reads.
        after_ptr, after_op: ops that each op waits for although no tensor flows.
        nbytes, held: (tensors,) as in `Tensor`.
        t_seconds: (tensors,) declared time of a transfer, nan where there is none.
        keep: (tensors,) whether it lives until the step ends.
        scattered: (tensors,) as in `Tensor`.
        alias: (tensors,) the tensor whose storage it shares, or -1.
        host_seconds: (ops,) as in `Op`, nan where there is none.
        unnamed: how many times are nan because none is declared.
    """

    flops: Floats
    moved_bytes: Floats
    seconds: Floats
    temp_bytes: Ints
    persistent_bytes: Ints
    out_ptr: Ints
    in_ptr: Ints
    in_t: Ints
    after_ptr: Ints
    after_op: Ints
    nbytes: Ints
    held: Ints
    t_seconds: Floats
    keep: NDArray[np.bool_]
    scattered: NDArray[np.bool_]
    alias: Ints
    host_seconds: Floats
    unnamed: int

    @property
    def maker(self) -> Ints:
        """(tensors,) the op that makes each tensor."""
        return np.repeat(np.arange(len(self.out_ptr) - 1), np.diff(self.out_ptr))

    @property
    def reader(self) -> Ints:
        """(reads,) the op that does each read."""
        return np.repeat(np.arange(len(self.in_ptr) - 1), np.diff(self.in_ptr))

    @property
    def sound(self) -> bool:
        """Whether all costs are numbers of at least 0, as far as a quick look says."""
        whole = (self.temp_bytes, self.persistent_bytes, self.nbytes, self.held)
        if any(column.dtype == object for column in whole):
            return False
        times = np.concatenate((self.seconds, self.host_seconds, self.t_seconds))
        counts = np.concatenate((self.flops, self.moved_bytes, np.nan_to_num(times)))
        declared = int(np.isnan(times).sum()) == self.unnamed and not np.isinf(times).any()
        return bool(declared and np.isfinite(counts).all() and min(c.min(initial=0) for c in (*whole, counts)) >= 0)

    @property
    def ascending(self) -> bool:
        """Whether program order is topological."""
        after = np.repeat(np.arange(len(self.after_ptr) - 1), np.diff(self.after_ptr))
        return bool((self.maker[self.in_t] < self.reader).all() and (self.after_op < after).all())

    @property
    def repeats_a_read(self) -> bool:
        """Whether an op names an input twice."""
        keys = np.sort(self.reader * (len(self.nbytes) + 1) + self.in_t)
        return bool((keys[1:] == keys[:-1]).any())


def columns_of(ops: Sequence[Op]) -> Columns:
    """The columns of a graph.

    Raises:
        KeyError: at a name that nothing has.
    """
    tensors = [t for op in ops for t in op.outputs]
    index = {op.name: i for i, op in enumerate(ops)}
    number = {t.name: k for k, t in enumerate(tensors)}
    alias = np.full(len(tensors), -1, np.int64)
    for k, t in enumerate(tensors):
        if t.alias_of is not None:
            alias[k] = number[t.alias_of]
    times = [op.seconds for op in ops], [op.host_seconds for op in ops], [t.seconds for t in tensors]
    seconds, host_seconds, t_seconds = times
    return Columns(
        np.array([op.flops for op in ops], np.float64),
        np.array([op.moved_bytes for op in ops], np.float64),
        np.array(seconds, np.float64),
        _whole([op.temp_bytes for op in ops]),
        _whole([op.persistent_bytes for op in ops]),
        _pointers(len(op.outputs) for op in ops),
        _pointers(len(op.inputs) for op in ops),
        _numbers(map(number.__getitem__, chain.from_iterable([op.inputs for op in ops]))),
        _pointers(len(op.after) for op in ops),
        _numbers(map(index.__getitem__, chain.from_iterable([op.after for op in ops]))),
        _whole([t.nbytes for t in tensors]),
        _whole([t.held for t in tensors]),
        np.array(t_seconds, np.float64),
        np.array([t.keep for t in tensors], np.bool_),
        np.array([t.scattered for t in tensors], np.bool_),
        alias,
        np.array(host_seconds, np.float64),
        sum(column.count(None) for column in times),
    )


def _numbers(values: Iterable[int]) -> Ints:
    return np.array(list(values), np.int64)


def _pointers(counts: Iterable[int]) -> Ints:
    return np.cumsum([0, *counts], dtype=np.int64)


def _whole(values: list[int]) -> Ints:
    try:
        return np.array(values, np.int64)
    except (OverflowError, ValueError):
        return np.array(values, object)


def digest_of(ops: Sequence[Op], names: list[str], tensors: list[str], columns: Columns) -> str:
    """A hash of all that a plan depends on: names of ops and tensors, costs, who reads what, in program order."""
    sha = hashlib.sha256()
    texts: tuple[list[str], ...] = (
        names,
        [op.kind for op in ops],
        [op.group or "" for op in ops],
        [op.phase for op in ops],
        [op.arithmetic for op in ops],
        [op.key for op in ops],
        tensors,
    )
    for column in texts:
        joined = "\0".join(column)
        apart = joined.count("\0") == max(0, len(column) - 1)
        sha.update((joined if apart else repr(column)).encode(errors="surrogatepass") + b"\0\0")
    declared = () if np.isnan(columns.host_seconds).all() else (columns.host_seconds,)
    for numbers in (*columns[:-2], *declared):
        sha.update(repr(numbers.tolist()).encode() if numbers.dtype == object else _little(numbers))
    return sha.hexdigest()[:16]


def _little(numbers: Ints) -> bytes:
    return numbers.astype(numbers.dtype.newbyteorder("<"), copy=False).tobytes()
