"""Proofs that nothing fits, with the numbers that show it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from baechi.cost.jit import kernel
from baechi.cost.problem import Arrays, Ints, Problem
from baechi.errors import Infeasible
from baechi.sim.certify.alive import Views, alive_while, heaviest, views_of
from baechi.sim.certify.packing import cannot_pack
from baechi.units import format_bytes

__all__ = ["explain_infeasible"]

_VISITS = 400_000_000  # ops looked at to find out when most is alive
_PACKED = 12  # instants whose groups are packed into the devices


def explain_infeasible(problem: Problem, *, spared: NDArray[np.bool_] | None = None) -> Infeasible | None:
    """A proof that no plan fits, or None when no argument gives one.

    1. What persists takes more than all devices have.
    2. While an op runs, all that was made before it and is read after it is alive: more than all devices have.
    3. A group, with what its own device must hold while some op runs, or an op with what it reads and makes,
       takes more than the largest device has.
    4. What each group's device must hold while an op runs cannot be packed into the devices.

    Large graphs are looked at only while the ops run at which a step in program order holds most.

    Args:
        problem: what should fit.
        spared: (tensors,) those that take memory only while an op makes or reads them.
    """
    a = problem.arrays
    persistent = int(a.persistent.sum())
    if persistent > int(a.cap.sum()):
        return _too_much("what persists takes", persistent, a)
    views = views_of(a)
    kept = problem if spared is None else problem.with_arrays(a._replace(t_size=np.where(spared, 0, a.t_size)))
    return _working_set(problem, views) or _while_it_runs(kept, views)


def _working_set(problem: Problem, views: Views) -> Infeasible | None:
    a, ops = problem.arrays, problem.graph.ops
    sums = np.concatenate([[0], np.cumsum(a.t_size)])
    working = a.temp + sums[a.out_ptr[1:]] - sums[a.out_ptr[:-1]] + _read(a, views)
    worst = int(working.argmax())
    if working[worst] <= a.cap.max():
        return None
    return _too_large(f"op '{ops[worst].name}' with what it reads and makes", int(working[worst]), a)


def _while_it_runs(problem: Problem, views: Views) -> Infeasible | None:
    a, ops = problem.arrays, problem.graph.ops
    looked = _instants(a, views)
    total, worst, most = heaviest(a, views, looked)
    k = int(total.argmax())
    if total[k] > a.cap.sum():
        return _too_much(f"what is alive while '{ops[looked[k]].name}' runs takes", int(total[k]), a)
    k = int(most.argmax())
    if most[k] > a.cap.max():
        first = ops[int(a.group_op[a.group_ptr[worst[k]]])]
        what = f"group '{first.group}'" if first.group else f"op '{first.name}'"
        return _too_large(f"{what}, with what it holds while '{ops[looked[k]].name}' runs,", int(most[k]), a)
    by_total, by_most = np.argsort(-total, kind="stable"), np.argsort(-most, kind="stable")
    for k in dict.fromkeys([*by_total[:_PACKED].tolist(), *by_most[:_PACKED].tolist()]):
        instant = _Instant.of(a, views, int(looked[k]))
        if cannot_pack(instant.sizes, instant.loose, a.cap):
            return _unpackable(ops[looked[k]].name, instant, a)
    return None


class _Instant(NamedTuple):
    """While an op runs: bytes of each group with any, and bytes of no group in particular."""

    sizes: Ints
    loose: int

    @classmethod
    def of(cls, a: Arrays, views: Views, op: int) -> "_Instant":
        alive = alive_while(a, views, op)
        sizes = alive.held.copy()
        np.add.at(sizes, a.group, a.persistent)
        return cls(sizes[sizes > 0], alive.elsewhere)


def _instants(a: Arrays, views: Views) -> Ints:
    """The ops to look at: all, or those during which program order holds most."""
    n = len(a.rank)
    count = min(n, max(16, _VISITS // max(1, n + len(a.in_t) + len(a.t_op))))
    if count == n:
        return np.arange(n)
    return a.order[np.argsort(-_profile(a, views), kind="stable")[:count]]


@kernel
def _profile(a: Arrays, views: Views) -> Ints:
    """(ops,) bytes alive at each position of program order, on one device without end."""
    change = np.zeros(len(a.order) + 1, np.int64)
    for t in range(len(a.t_op)):
        root = views.root[t]
        if root != t:
            continue
        change[a.rank[a.t_op[t]]] += a.t_size[t]
    last = a.rank[a.t_op].copy()
    for t in range(len(a.t_op)):
        root = views.root[t]
        for r in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
            last[root] = max(last[root], a.rank[a.rd_op[r]])
        if a.t_keep[t]:
            last[root] = len(a.order) - 1
    for t in range(len(a.t_op)):
        if views.root[t] == t:
            change[last[t] + 1] -= a.t_size[t]
    return np.cumsum(change)[:-1] + a.temp[a.order]


def _too_much(what: str, needed: int, a: Arrays) -> Infeasible:
    return Infeasible(
        "B501",
        f"no plan fits: {what} {format_bytes(needed)}, all devices have {format_bytes(int(a.cap.sum()))}",
        help=f"give the cluster at least {format_bytes(needed)} in all",
        proved=True,
    )


def _too_large(what: str, needed: int, a: Arrays) -> Infeasible:
    largest = format_bytes(int(a.cap.max()))
    return Infeasible(
        "B501",
        f"no plan fits: {what} needs {format_bytes(needed)} on one device, the largest has {largest}",
        help=f"give one device at least {format_bytes(needed)}, or use a smaller batch",
        proved=True,
    )


def _unpackable(op: str, instant: _Instant, a: Arrays) -> Infeasible:
    most, all_ = format_bytes(int(instant.sizes.max())), format_bytes(int(instant.sizes.sum()) + instant.loose)
    return Infeasible(
        "B501",
        f"no plan fits: while '{op}' runs, {len(instant.sizes)} groups of up to {most}, {all_} with all that is alive, "
        f"cannot be divided among {len(a.cap)} devices with {format_bytes(int(a.cap.sum()))} in all",
        help=f"give the devices {_more_room(instant, a.cap):.1%} more memory at the least, or use a smaller batch",
        proved=True,
    )


def _more_room(instant: _Instant, rooms: Ints) -> float:
    """The share of memory that every device lacks for the proof to fail."""
    low, high = 0.0, 2.0
    while high - low > 5e-4:
        middle = (low + high) / 2
        if cannot_pack(instant.sizes, instant.loose, (rooms * (1 + middle)).astype(np.int64)):
            low = middle
        else:
            high = middle
    return high


@kernel
def _read(a: Arrays, views: Views) -> Ints:
    """Bytes that each op's inputs take wherever it runs; views of one storage count once."""
    read = np.zeros(len(a.rank), np.int64)
    counted = np.full(len(a.t_op), -1, np.int64)
    charged = np.full(len(read), -1, np.int64)
    for i in range(len(read)):
        for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
            r = views.root[a.in_t[k]]
            maker = a.t_op[r]
            if counted[r] == i:
                continue
            counted[r] = i
            most = a.t_size[r]
            if a.t_bytes[r] > most and a.group[maker] != a.group[i] and charged[maker] != i:
                charged[maker] = i  # what several tensors hold may be the same bytes
                most += min(a.t_bytes[r] - most, a.persistent[maker])
            read[i] += min(views.least[a.in_t[k]], most)
    return read
