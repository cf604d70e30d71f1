"""The tensors of a graph as flat arrays."""

from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baechi.errors import BaechiError
from baechi.ir.graph import Graph
from baechi.units import TICKS_PER_SECOND

__all__ = ["LINK", "TOKEN", "Ints", "buckets", "tensor_arrays", "too_large", "waited", "whole"]

Ints = NDArray[Any]
"""An array of int64; its elements are left untyped, for compiled loops mix them with `int`."""

LINK = -1
"""In `Arrays.t_ticks`: the link says how long a transfer takes."""
TOKEN = -2
"""In `Arrays.t_ticks`: no tensor but a control dependency; it reaches every device at once."""


def tensor_arrays(graph: Graph) -> tuple[Ints, ...]:
    """The columns of `Arrays` from `out_ptr` to `rd_op`."""
    controls = waited(graph)
    index: dict[str, int] = {}
    token: dict[str, int] = {}
    rows: list[tuple[int, int, int, int, int, int]] = []  # op, bytes, held, packed, keep, ticks
    out_ptr = [0]
    for i, op in enumerate(graph.ops):
        for t in op.outputs:
            index[t.name] = len(rows)
            ticks = LINK if t.seconds is None else round(t.seconds * TICKS_PER_SECOND)
            rows.append((i, t.nbytes, t.held, t.packed_bytes, t.keep, ticks))
        if op.name in controls:
            token[op.name] = len(rows)
            rows.append((i, 0, 0, 0, False, TOKEN))
        out_ptr.append(len(rows))
    reads = [[index[name] for name in op.inputs] for op in graph.ops]
    for read, op in zip(reads, graph.ops, strict=True):
        if op.after:
            read += [token[name] for name in op.after]
    in_ptr = np.zeros(len(reads) + 1, np.int64)
    np.cumsum([len(r) for r in reads], out=in_ptr[1:])
    in_t = np.array(list(chain.from_iterable(reads)), np.int64)
    reader = np.repeat(np.arange(len(reads)), np.diff(in_ptr))
    rd_ptr, at = buckets(in_t, len(rows))
    table = whole(rows).reshape(-1, 6)
    t_base = np.full(len(rows), -1, np.int64)
    for name, base in _bases(graph).items():
        t_base[index[name]] = index[base]
    size = np.where(t_base >= 0, 0, np.maximum(table[:, 1] - table[:, 2], 0))
    return (
        np.array(out_ptr, np.int64),
        *(np.ascontiguousarray(column) for column in (table[:, 0], table[:, 1], size)),
        t_base,
        *(np.ascontiguousarray(column) for column in (table[:, 3], table[:, 4], table[:, 5])),
        in_ptr,
        in_t,
        rd_ptr,
        reader[at].astype(np.int64),
    )


def _bases(graph: Graph) -> dict[str, str]:
    """For each view, the input of its op that it is a view of, however long the chain of views."""
    root: dict[str, str] = {}
    bases: dict[str, str] = {}
    if all(t.alias_of is None for op in graph.ops for t in op.outputs):
        return bases
    for i in graph.order:
        op = graph.ops[i]
        for t in op.outputs:
            root[t.name] = t.name if t.alias_of is None else root.get(t.alias_of, t.alias_of)
            if t.alias_of is not None:
                base = next((u for u in op.inputs if root[u] == root[t.name]), None)
                if base is not None:
                    bases[t.name] = base
    return bases


def waited(graph: Graph) -> set[str]:
    """Names of the ops that have a control dependent."""
    return {name for op in graph.ops if op.after for name in op.after}


def buckets(key: Ints, count: int) -> tuple[Ints, Ints]:
    """Indices by key, each bucket in ascending order, as (pointers, indices)."""
    ptr = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(key, minlength=count), out=ptr[1:])
    return ptr, np.argsort(key, kind="stable").astype(np.int64)


def whole(values: list[Any]) -> Ints:
    """An array of int64.

    Raises:
        BaechiError: B302 on a number that does not fit.
    """
    try:
        return np.array(values, np.int64)
    except OverflowError:
        raise too_large() from None


def too_large() -> BaechiError:
    """The error for sums that 64 bits cannot count."""
    return BaechiError(
        "B302",
        "the step holds more than 4e18 bytes or takes longer than 4e6 s",
        help="are the units bytes and seconds?",
    )
