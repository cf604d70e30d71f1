"""What no plan can beat: lower bounds on the time of a step, or of each of many."""

import numpy as np

from baechi.cost.jit import kernel
from baechi.cost.problem import LINK, THROUGHPUT, UNLIMITED_CORES, Arrays, Problem
from baechi.cost.tensors import MOST_TICKS
from baechi.ir.plan import Bounds
from baechi.sim.certify.flow import heaviest_least_load
from baechi.sim.certify.net import net_of
from baechi.sim.certify.step import refuted_ticks
from baechi.units import TICKS_PER_SECOND, to_seconds

__all__ = ["bounds"]

_ROUNDS = 30
_ROWS = 1000


def bounds(problem: Problem, *, thorough: bool = True) -> Bounds:
    """Lower bounds on the objective of any plan, in seconds.

    - ``critical path``: the longest chain of ops, each on its fastest device, transfers free.
    - ``work``: weighs devices by v, for sum_i min_d(v_d k_id) <= sum_d v_d load_d, and in one step no
      host gives more than min(sum v_d, cores x max v_d) per second. Equal devices need no weights;
      for others v is improved by a few multiplicative rounds, each of which gives a valid bound.
    - ``communication``: the longest time that is refuted, see `refuted_ticks`: what cannot be sent in time
      shares a device, and there runs one after the other. Given when it is better than the others.
    - ``one group``: the least load of a device that has some group, see `least_load`.

    The first and third are of one step, the last of one of many. Where no cores are shared, a step
    takes a whole multiple of the unit of which all its times are multiples, and so do its bounds.

    Args:
        problem: what to place.
        thorough: the last two as well, which take longer than a list scheduler does.
    """
    a = problem.arrays
    if a.objective == THROUGHPUT:
        work = _work(a._replace(cores=np.full(len(a.cores), UNLIMITED_CORES)))
        return Bounds({"work": work} | ({"one group": to_seconds(heaviest_least_load(a))} if thorough else {}))
    unit = _unit(a)
    proofs = {"critical path": to_seconds(_longest_path(a)), "work": _whole(_work(a), unit)}
    if not thorough:
        return Bounds(proofs)
    proved = round(max(proofs.values()) * TICKS_PER_SECOND)
    refuted = refuted_ticks(net_of(a), len(a.cap), proved)
    if proved + 1 < refuted < MOST_TICKS:  # beyond, every time is refuted: nothing fits, which is not said here
        proofs["communication"] = _whole(to_seconds(refuted), unit)
    return Bounds(proofs)


def _unit(a: Arrays) -> int:
    """Ticks of which all op and transfer times are multiples."""
    over_links = a.t_ticks == LINK
    if a.t_bytes[over_links].any() or (over_links.any() and a.latency.any()) or a.cores.min() < UNLIMITED_CORES:
        return 1
    unit = int(np.gcd.reduce(a.t_ticks[a.t_ticks > 0], initial=0))
    for k in range(0, len(a.ticks), _ROWS):
        unit = int(np.gcd.reduce(a.ticks[k : k + _ROWS], axis=None, initial=unit))
        if unit == 1:
            break
    return max(1, unit)


def _whole(seconds: float, unit: int) -> float:
    return to_seconds(-(-round(seconds * TICKS_PER_SECOND) // unit) * unit)


@kernel
def _longest_path(a: Arrays) -> int:
    end = np.zeros(len(a.rank), np.int64)
    longest = 0
    for i in a.order:
        start = 0
        for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
            start = max(start, end[a.t_op[a.in_t[k]]])
        end[i] = start + a.ticks[i].min()
        longest = max(longest, end[i])
    return int(longest)


def _work(a: Arrays) -> float:
    totals = a.ticks.sum(axis=0)
    if not totals.all():
        return 0.0
    equal = bool((a.ticks == a.ticks[:, :1]).all())
    if equal and a.cores.min() >= UNLIMITED_CORES:
        return to_seconds(-(-int(totals[0]) // len(totals)))
    ticks = (a.ticks[:, :1] if equal else a.ticks).astype(np.float64)
    weight = totals.min() / totals.astype(np.float64)
    best = 0.0
    for _ in range(_ROUNDS):
        weighted = ticks * weight[: ticks.shape[1]]
        rate = sum(
            min(weight[a.host == h].sum(), float(cores) * weight[a.host == h].max())
            for h, cores in enumerate(a.cores)
            if (a.host == h).any()
        )
        best = max(best, float(weighted.min(axis=1).sum()) / rate)
        if equal:
            break
        choice = weighted.argmin(axis=1)
        load = np.bincount(choice, ticks[np.arange(len(ticks)), choice], len(totals))
        if not load.any():  # every op takes no time somewhere
            break
        weight *= np.clip(load / load.mean(), 0.5, 2.0) ** 0.3
    return float(best / 1e12 * (1 - 1e-12))
