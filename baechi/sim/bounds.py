"""What no plan can beat: lower bounds on the step time, and proofs that nothing fits."""

import numpy as np

from baechi.cost.jit import kernel
from baechi.cost.problem import THROUGHPUT, UNLIMITED_CORES, Arrays, Ints, Problem
from baechi.errors import Infeasible
from baechi.ir.plan import Bounds
from baechi.sim.certify.net import net_of
from baechi.sim.certify.step import refuted_ticks
from baechi.units import TICKS_PER_SECOND, format_bytes, to_seconds

__all__ = ["bounds", "explain_infeasible"]

_ROUNDS = 30


def bounds(problem: Problem) -> Bounds:
    """Lower bounds on the objective of any plan, in seconds.

    - ``critical path``: the longest chain of ops, each on its fastest device, transfers free; it bounds one
      step only, for the steps of a pipeline overlap.
    - ``work``: weighs devices by v, for sum_i min_d(v_d k_id) <= sum_d v_d load_d, and in one step no
      host gives more than min(sum v_d, cores x max v_d) per second. Equal devices need no weights;
      for others v is improved by a few multiplicative rounds, each of which gives a valid bound.
    - ``communication``: the longest time that is refuted, see `refuted_ticks`: what cannot be sent in time
      shares a device, and there runs one after the other. Given when it is better than the others.
    """
    a = problem.arrays
    if a.objective == THROUGHPUT:
        return Bounds({"work": _work(a._replace(cores=np.full(len(a.cores), UNLIMITED_CORES)))})
    proofs = {"critical path": to_seconds(_longest_path(a, a.ticks.min(axis=1))), "work": _work(a)}
    proved = int(max(proofs.values()) * TICKS_PER_SECOND)
    refuted = refuted_ticks(net_of(a), len(a.cap), proved)
    if refuted > proved + 1:
        proofs["communication"] = to_seconds(refuted)
    return Bounds(proofs)


@kernel
def _longest_path(a: Arrays, ticks: Ints) -> int:
    end = np.zeros(len(ticks), np.int64)
    longest = 0
    for i in a.order:
        start = 0
        for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
            start = max(start, end[a.t_op[a.in_t[k]]])
        end[i] = start + ticks[i]
        longest = max(longest, end[i])
    return int(longest)


def _work(a: Arrays) -> float:
    totals = a.ticks.sum(axis=0).astype(np.float64)
    if not totals.all():
        return 0.0
    ticks = a.ticks.astype(np.float64)
    weight = totals.min() / totals
    best = 0.0
    for _ in range(_ROUNDS):
        weighted = ticks * weight
        rate = sum(
            min(weight[a.host == h].sum(), float(cores) * weight[a.host == h].max())
            for h, cores in enumerate(a.cores)
            if (a.host == h).any()
        )
        best = max(best, float(weighted.min(axis=1).sum()) / rate)
        if (a.ticks == a.ticks[:, :1]).all():
            break
        choice = weighted.argmin(axis=1)
        load = np.bincount(choice, ticks[np.arange(len(ticks)), choice], len(totals))
        weight *= np.clip(load / load.mean(), 0.5, 2.0) ** 0.3
    return float(best / 1e12 * (1 - 1e-12))


def explain_infeasible(problem: Problem) -> Infeasible | None:
    """A proof that no plan fits, or None when no bound gives one.

    Three bounds: what persists against the memory of all devices, a colocation group and an op's
    working set against the largest device.
    """
    a, ops = problem.arrays, problem.graph.ops
    total, largest = int(a.cap.sum()), int(a.cap.max())
    persistent = int(a.persistent.sum())
    if persistent > total:
        return Infeasible(
            "B501",
            f"no plan fits: what persists takes {format_bytes(persistent)}, all devices have {format_bytes(total)}",
            help=f"give the cluster at least {format_bytes(persistent)} in all",
            proved=True,
        )
    own = a.temp + _made(a)
    needs = np.zeros(len(a.group_ptr) - 1, np.int64)
    np.maximum.at(needs, a.group, own)
    needs += np.bincount(a.group, a.persistent, len(needs)).astype(np.int64)
    worst = int(needs.argmax())
    if needs[worst] > largest:
        first = ops[int(a.group_op[a.group_ptr[worst]])]
        what = f"group '{first.group}'" if first.group else f"op '{first.name}'"
        return _too_large(what, int(needs[worst]), largest)
    working = own + _read(a)
    worst = int(working.argmax())
    if working[worst] > largest:
        return _too_large(f"op '{ops[worst].name}' with what it reads and makes", int(working[worst]), largest)
    return None


def _too_large(what: str, needed: int, largest: int) -> Infeasible:
    return Infeasible(
        "B501",
        f"no plan fits: {what} needs {format_bytes(needed)} on one device, the largest has {format_bytes(largest)}",
        help=f"give one device at least {format_bytes(needed)}, or use a smaller batch",
        proved=True,
    )


def _made(a: Arrays) -> Ints:
    sums = np.concatenate([[0], np.cumsum(a.t_size)])
    return np.asarray(sums[a.out_ptr[1:]] - sums[a.out_ptr[:-1]], np.int64)


@kernel
def _read(a: Arrays) -> Ints:
    """Bytes that each op's inputs take wherever it runs; views of one storage count once."""
    tensors = len(a.t_op)
    root = np.arange(tensors)
    least = a.t_bytes.copy()  # the smallest of the views on the way: all that a copy may take
    for i in a.order:
        for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
            if a.t_base[t] >= 0:
                root[t] = root[a.t_base[t]]
                least[t] = min(least[t], least[a.t_base[t]])
    read = np.zeros(len(a.rank), np.int64)
    counted = np.full(tensors, -1, np.int64)
    charged = np.full(len(read), -1, np.int64)
    for i in range(len(read)):
        for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
            r = root[a.in_t[k]]
            maker = a.t_op[r]
            if counted[r] == i:
                continue
            counted[r] = i
            most = a.t_size[r]
            if a.t_bytes[r] > most and a.group[maker] != a.group[i] and charged[maker] != i:
                charged[maker] = i  # what several tensors hold may be the same bytes
                most += min(a.t_bytes[r] - most, a.persistent[maker])
            read[i] += min(least[a.in_t[k]], most)
    return read
