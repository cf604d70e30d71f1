"""The tensors of a graph as flat arrays."""

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from baechi.cost.jit import kernel
from baechi.errors import BaechiError
from baechi.ir.columns import Columns
from baechi.ir.graph import Graph
from baechi.units import TICKS_PER_SECOND

__all__ = ["LINK", "MOST_TICKS", "TOKEN", "Ints", "buckets", "tensor_arrays", "token_ops", "too_large", "whole"]

Ints = NDArray[Any]
"""An array of int64; its elements are left untyped, for compiled loops mix them with `int`."""

LINK = -1
"""In `Arrays.t_ticks`: the link says how long a transfer takes."""
TOKEN = -2
"""In `Arrays.t_ticks`: no tensor but a control dependency; it reaches every device at once."""
MOST_TICKS = 4e18
"""The longest time that sums of times may reach."""

_built: WeakKeyDictionary[Graph, tuple[Ints, ...]] = WeakKeyDictionary()


def tensor_arrays(graph: Graph) -> tuple[Ints, ...]:
    """The columns of `Arrays` from `out_ptr` to `rd_op`, built once for a graph."""
    if graph not in _built:
        _built[graph] = _tensor_arrays(graph.columns, np.asarray(graph.order, np.int64))
    return _built[graph]


def token_ops(c: Columns) -> NDArray[np.bool_]:
    """(ops,) whether an op has a control dependent, and so makes a token behind its tensors."""
    waited = np.zeros(len(c.flops), np.bool_)
    waited[c.after_op] = True
    return waited


def _tensor_arrays(c: Columns, order: Ints) -> tuple[Ints, ...]:
    tokens = np.concatenate([[0], np.cumsum(token_ops(c))])
    out_ptr, in_ptr = c.out_ptr + tokens, c.in_ptr + c.after_ptr
    tensors = int(out_ptr[-1])
    number = np.arange(len(c.nbytes)) + tokens[c.maker]
    nbytes, size, packed, keep = (np.zeros(tensors, np.int64) for _ in range(4))
    t_base, t_ticks = np.full(tensors, -1, np.int64), np.full(tensors, TOKEN, np.int64)
    nbytes[number], keep[number] = whole(c.nbytes), c.keep
    packed[number] = np.where(c.scattered, nbytes[number], 0)
    t_ticks[number] = _transfer_ticks(c.t_seconds)
    base = _bases(order, c.out_ptr, c.alias, c.in_ptr, c.in_t) if (c.alias >= 0).any() else c.alias
    t_base[number] = np.where(base >= 0, number[base], -1) if len(base) else base
    size[number] = np.where(base >= 0, 0, np.maximum(nbytes[number] - whole(c.held), 0))
    in_t = np.empty(int(in_ptr[-1]), np.int64)
    after = np.repeat(np.arange(len(c.flops)), np.diff(c.after_ptr))
    in_t[np.arange(len(c.in_t)) + c.after_ptr[c.reader]] = number[c.in_t] if len(number) else c.in_t
    in_t[np.arange(len(after)) + c.in_ptr[after + 1]] = out_ptr[c.after_op + 1] - 1
    reader = np.repeat(np.arange(len(c.flops)), np.diff(in_ptr))
    rd_ptr, at = buckets(in_t, tensors)
    t_op = np.repeat(np.arange(len(c.flops)), np.diff(out_ptr))
    return out_ptr, t_op, nbytes, size, t_base, packed, keep, t_ticks, in_ptr, in_t, rd_ptr, reader[at]


def _transfer_ticks(seconds: NDArray[np.float64]) -> Ints:
    if np.nansum(seconds) * TICKS_PER_SECOND > MOST_TICKS:
        raise too_large()
    return np.where(np.isnan(seconds), LINK, np.rint(np.nan_to_num(seconds) * TICKS_PER_SECOND)).astype(np.int64)


@kernel
def _bases(order: Ints, out_ptr: Ints, alias: Ints, in_ptr: Ints, in_t: Ints) -> Ints:
    """For each view, the input of its op that it is a view of, however long the chain of views, or -1."""
    root = np.arange(len(alias))
    base = np.full(len(alias), -1, np.int64)
    for i in order:
        for t in range(out_ptr[i], out_ptr[i + 1]):
            if alias[t] < 0:
                continue
            root[t] = root[alias[t]]
            for k in range(in_ptr[i + 1] - 1, in_ptr[i] - 1, -1):
                if root[in_t[k]] == root[t]:
                    base[t] = in_t[k]
    return base


@kernel
def buckets(key: Ints, count: int) -> tuple[Ints, Ints]:
    """Indices by key, each bucket in ascending order, as (pointers, indices)."""
    ptr = np.zeros(count + 1, np.int64)
    for k in key:
        ptr[k + 1] += 1
    for k in range(count):
        ptr[k + 1] += ptr[k]
    at = ptr[:-1].copy()
    index = np.empty(len(key), np.int64)
    for i in range(len(key)):
        index[at[key[i]]] = i
        at[key[i]] += 1
    return ptr, index


def whole(values: Any) -> Ints:
    """An array of int64.

    Raises:
        BaechiError: B302 on a number that does not fit.
    """
    try:
        return np.asarray(values).astype(np.int64, copy=False)
    except OverflowError:
        raise too_large() from None


def too_large() -> BaechiError:
    """The error for sums that 64 bits cannot count."""
    return BaechiError(
        "B302",
        "the step holds more than 4e18 bytes or takes longer than 4e6 s",
        help="are the units bytes and seconds?",
    )
