"""HEFT, PEFT and CPoP: ops by rank, each to where it ends soonest."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from baechi.cost.problem import PARALLEL, Arrays, Ints, Problem
from baechi.errors import BaechiError
from baechi.placers.base import Placer
from baechi.placers.effort import visits
from baechi.placers.ranked import Order, Ranked, by_rank
from baechi.placers.ranks import critical_device, downward_rank, mean_transfers, optimistic_costs, upward_rank
from baechi.sim.evaluate import Schedule, evaluate

__all__ = ["Heft", "Rank"]

Rank = Literal["upward", "peft", "cpop"]
_ROUNDS = 4
_NOISE = (0.1, 0.2, 0.4, 0.8)
_MOST_PERTURBED = 300_000  # ops, over all perturbed schedules
_SQUEEZE = 0.97
_WORK = 6e6  # visits over all schedules of one call


@dataclass(frozen=True)
class Heft(Placer):
    """Heterogeneous earliest finish time, and its kin.

    Ready ops are taken by falling rank; each goes to the device where it ends soonest, into the
    first gap between what is planned there that is long enough. A colocation group goes where its
    first op goes; a device whose cap it would pass is not considered while another has room.

    Args:
        rank: ``upward`` is HEFT: the longest way to the end, in means over devices and links.
            ``peft`` looks ahead: ranked by the mean row of the optimistic cost table, each op goes to
            the device where its end and that device's entry add up to the least. ``cpop`` ranks by
            the longest way through an op, and the critical path stays on one device.
        tries: how often to schedule a small graph again with perturbed priorities.

    Source: see `baechi.placers.ranks`.

    Example:
        >>> from baechi.ir.cluster import Cluster, Device
        >>> from baechi.models.graphs import figure_2
        >>> two = Cluster((Device("a", 8), Device("b", 8)), contention="parallel")
        >>> Heft().place(figure_2(), two).predicted.step_seconds
        13.0
    """

    name: ClassVar[str] = "heft"
    rank: Rank = "upward"
    tries: int = 300

    def __post_init__(self) -> None:
        if self.rank not in get_args(Rank):
            raise BaechiError("B505", f"no rank '{self.rank}'", help="one of: " + ", ".join(get_args(Rank)))

    def schedules(self, problem: Problem, seed: int) -> Iterator[Schedule]:
        """A schedule for each guess of what a group takes, each with and without two refinements.

        The refinements: what is free and there from the start goes with its first reader, and
        transfers wait for each other at the copy lanes. A schedule that is over a cap is followed by
        some that keep further away from it. Of a very large graph only the first few.
        """
        a = problem.arrays
        order = _order(a, self.rank)
        follows = (True, False) if _some_follow(a) else (False,)
        ways = [(claim, lanes, follow) for claim in _claims(a) for lanes in _lanes(a) for follow in follows]
        for claim, lanes, follow in ways[: max(1, int(_WORK / visits(a)))]:
            yield from _squeezed(a, lanes, order, claim, follow)
        yield from self._perturbed(a, order, ways[0], seed)

    def _perturbed(self, a: Arrays, order: Order, way: tuple[Ints, Arrays, bool], seed: int) -> Iterator[Schedule]:
        """The best, as planned, of schedules by priorities that random factors have changed."""
        random = np.random.default_rng(seed)
        claim, lanes, follow = way
        best: Ranked | None = None
        for k in range(min(self.tries, _MOST_PERTURBED // max(1, len(a.rank)))):
            factor = 1.0 + _NOISE[k % len(_NOISE)] * random.random(len(a.rank))
            made = by_rank(lanes, order._replace(priority=(order.priority * factor).astype(np.int64)), claim, follow)
            if best is None or made.end.max(initial=0) < best.end.max(initial=0):
                best = made
        if best is not None:
            yield _in_order(best)


def _squeezed(a: Arrays, lanes: Arrays, order: Order, claim: Ints, follow: bool) -> Iterator[Schedule]:
    """The schedule; while it is over a cap, another in which devices that were over look smaller."""
    room = a.cap
    for _ in range(_ROUNDS):
        schedule = _in_order(by_rank(lanes._replace(cap=room), order, claim, follow))
        yield schedule
        if _fits_anyhow(a):
            return
        peak = evaluate(a, schedule)[0].peak
        if (peak <= a.cap).all():
            return
        room = np.where(peak > a.cap, room * (_SQUEEZE * a.cap / np.maximum(peak, 1)), room).astype(np.int64)


def _fits_anyhow(a: Arrays) -> bool:
    """Whether the smallest device has room for all ops and for a copy of every tensor."""
    dynamic = a.t_size.sum() + a.t_bytes.sum() + a.t_packed.sum() * len(a.cap) + a.temp.max(initial=0)
    return bool(a.persistent.sum() + dynamic <= a.cap.min())


def _in_order(made: Ranked) -> Schedule:
    """Ops by planned start; of what starts together, first what takes no time."""
    return Schedule(made.device, np.lexsort((np.argsort(made.taken), made.end, made.start)))


def _some_follow(a: Arrays) -> bool:
    """Whether an op is free and there from the start."""
    return bool(((np.diff(a.in_ptr) == 0) & (a.ticks.max(axis=1, initial=0) == 0)).any())


def _order(a: Arrays, rank: Rank) -> Order:
    transfer = mean_transfers(a)
    nothing, free = np.zeros((0, 0), np.int64), np.full(len(a.rank), -1, np.int64)
    if rank == "peft":
        ahead = optimistic_costs(a, transfer)
        return Order(ahead.sum(axis=1), ahead, free)
    upward = upward_rank(a, transfer)
    if rank == "upward":
        return Order(upward, nothing, free)
    priority = upward + downward_rank(a, transfer)
    return Order(priority, nothing, critical_device(a, priority))


def _lanes(a: Arrays) -> tuple[Arrays, ...]:
    """With the contention that there is, and as if there was none."""
    return (a,) if a.contention == PARALLEL else (a, a._replace(contention=PARALLEL))


def _claims(a: Arrays) -> tuple[Ints, ...]:
    """Bytes that each group takes where it goes: what persists and a share of what it makes, or the former alone.

    The share is that of one device: the bytes that its peak adds to what persists, over all that is made.
    """
    groups = len(a.group_ptr) - 1
    persistent = np.bincount(a.group, a.persistent, groups)
    made = np.bincount(a.group[a.t_op], a.t_size, groups)
    if (persistent + made).sum() <= a.cap.min():
        return (persistent.astype(np.int64),)
    run, _ = evaluate(a, Schedule(np.zeros(len(a.rank), np.int64), a.order))
    share = (run.peak[0] - persistent.sum()) / max(made.sum(), 1.0)
    return (persistent + share * made).astype(np.int64), persistent.astype(np.int64)
