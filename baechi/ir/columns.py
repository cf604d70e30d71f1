"""A graph's ops and tensors as columns: numbers by index instead of objects by name."""

import hashlib
from collections.abc import Mapping, Sequence, Sized
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from baechi.ir.op import Op

__all__ = ["Columns", "columns_of", "digest_of", "fields"]

_BLOCK = 1024

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


def columns_of(ops: Sequence[Op], index: Mapping[str, int], number: Mapping[str, int]) -> Columns:
    """The columns of a graph.

    Args:
        ops: in program order.
        index, number: of each op and of each tensor, by name.

    Raises:
        KeyError: at a name that nothing has.
    """
    flops, moved_bytes, seconds, host_seconds = fields(ops, ("flops", "moved_bytes", "seconds", "host_seconds"))
    temp_bytes, persistent_bytes = fields(ops, ("temp_bytes", "persistent_bytes"))
    outputs, inputs, after = fields(ops, ("outputs", "inputs", "after"))
    tensors = list(chain.from_iterable(outputs))
    nbytes, held, t_seconds, keep, scattered, alias_of = fields(
        tensors, ("nbytes", "held", "seconds", "keep", "scattered", "alias_of")
    )
    alias = np.full(len(tensors), -1, np.int64)
    for k, name in enumerate(alias_of):
        if name is not None:
            alias[k] = number[name]
    return Columns(
        np.array(flops, np.float64),
        np.array(moved_bytes, np.float64),
        np.array(seconds, np.float64),
        _whole(temp_bytes),
        _whole(persistent_bytes),
        _pointers(outputs),
        _pointers(inputs),
        np.fromiter(map(number.__getitem__, chain.from_iterable(inputs)), np.int64),
        _pointers(after),
        np.fromiter(map(index.__getitem__, chain.from_iterable(after)), np.int64),
        _whole(nbytes),
        _whole(held),
        np.array(t_seconds, np.float64),
        np.array(keep, np.bool_),
        np.array(scattered, np.bool_),
        alias,
        np.array(host_seconds, np.float64),
        sum(column.count(None) for column in (seconds, host_seconds, t_seconds)),
    )


def fields(records: Sequence[object], names: Sequence[str]) -> list[list[Any]]:
    """Fields of many records as lists, a block of records at a time, which the processor's cache holds.

    Example:
        >>> fields([1j, 2j], ["real", "imag"])
        [[0.0, 0.0], [1.0, 2.0]]
    """
    columns: list[list[Any]] = [[] for _ in names]
    getters = [attrgetter(name) for name in names]
    for start in range(0, len(records), _BLOCK):
        block = records[start : start + _BLOCK]
        for column, getter in zip(columns, getters, strict=True):
            column.extend(map(getter, block))
    return columns


def _pointers(rows: Sequence[Sized]) -> Ints:
    ptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)), out=ptr[1:])
    return ptr


def _whole(values: list[int]) -> Ints:
    try:
        return np.array(values, np.int64)
    except (OverflowError, ValueError):
        return np.array(values, object)


def digest_of(ops: Sequence[Op], names: list[str], tensors: list[str], columns: Columns) -> str:
    """A hash of all that a plan depends on: names of ops and tensors, costs, who reads what, in program order."""
    sha = hashlib.sha256()
    kind, group, phase, arithmetic, key = fields(ops, ("kind", "group", "phase", "arithmetic", "key"))
    for column in (names, kind, [name or "" for name in group], phase, arithmetic, key, tensors):
        joined = "\0".join(column)
        apart = joined.count("\0") == max(0, len(column) - 1)
        sha.update((joined if apart else repr(column)).encode(errors="surrogatepass") + b"\0\0")
    declared = () if np.isnan(columns.host_seconds).all() else (columns.host_seconds,)
    for numbers in (*columns[:-2], *declared):
        sha.update(repr(numbers.tolist()).encode() if numbers.dtype == object else _little(numbers))
    return sha.hexdigest()[:16]


def _little(numbers: Ints) -> bytes:
    return numbers.astype(numbers.dtype.newbyteorder("<"), copy=False).tobytes()
