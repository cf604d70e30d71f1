"""`exact`: constraint programming, which goes on until its schedule is proved to be the best there is."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from baechi.cost.problem import LATENCY, Arrays, Problem
from baechi.errors import Infeasible
from baechi.placers._cp_coarse import drawn_together
from baechi.placers.apart import call_solver
from baechi.placers.base import Placer, Solution
from baechi.placers.portfolio import Auto
from baechi.placers.variants import Variant
from baechi.placers.watch import Watch
from baechi.sim.evaluate import Schedule

if TYPE_CHECKING:
    from baechi.placers._cp_record import Proof

__all__ = ["Exact", "solve_exact"]

_OPS_PER_GROUP = 5
_LOADS = 5  # times as many groups when only loads count


def solve_exact(
    a: Arrays,
    start: Schedule,
    *,
    seconds: float,
    gap: float = 0.0,
    workers: int = 0,
    seed: int = 0,
    bound: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> "Proof":
    """Search for the best schedule of a problem, and prove that it is.

    Args:
        a: the problem; its objective is the makespan of one step, or the highest load of a device.
        start: a schedule to be better than; it need not fit.
        seconds: after which to stop.
        gap: stop as soon as the objective is at most this fraction above the bound.
        workers: threads of the solver; 0 takes all cores, 1 never looks for plans beside the proof.
        seed: of its random choices.
        bound: ticks that are known to be a lower bound.
        on_progress: told (objective, bound) in ticks when one of them changes.

    Returns:
        The best schedule, which may be `start`. Ctrl-C stops the search and returns it too.
    """
    proof: Proof = call_solver(
        "baechi.placers._cp_search:prove",
        a,
        start,
        gap,
        bound,
        seconds=seconds,
        workers=workers or os.cpu_count() or 1,
        seed=seed,
        tell=on_progress,
    )
    return proof


@dataclass(frozen=True)
class Exact(Placer):
    """The best plan there is, with the proof, of graphs with up to some dozens of colocation groups.

    Constraint programming starts from what `auto` finds. Its first runs have one thread: what they
    prove, many graphs of a few dozen ops in some seconds, is the same plan each time. After one that
    takes much work, half of the threads look for better plans while the others refute such; what they
    find, like all that the clock stops, may differ.

    Args:
        seconds: for the search.
        gap: fraction above the bound that is good enough.
        workers: its threads; 0 takes all cores.
        groups: the most colocation groups that it moves; of a larger graph, groups that `auto` put on one
            device are drawn together, and the bound of what is left is no bound of the whole.
    """

    name: ClassVar[str] = "exact"
    searches: ClassVar[bool] = True
    seconds: float = 60.0
    gap: float = 0.0
    workers: int = 0
    groups: int = 60

    def schedules(self, problem: Problem, seed: int) -> Iterator[Schedule]:
        """What it finds for the problem as it is."""
        yield self.solve(problem, (Variant.plain(problem),), seed, Watch()).schedule

    def solve(self, problem: Problem, views: Sequence[Variant], seed: int, watch: Watch) -> Solution:
        """The best schedule, and the bound that the search has proved.

        Raises:
            Infeasible: B501 when it proves that no plan fits, B502 when it found none.
        """
        start, failure = self._start(problem, views, seed, watch)
        a = problem.arrays
        small = a if self._is_small(a) else drawn_together(a, start, self.groups)
        if len(a.rank) > _OPS_PER_GROUP * self.groups and a.objective == LATENCY:
            if failure is not None:
                raise failure
            return Solution(start)
        whole = small is a

        def tell(ticks: int, bound: int) -> None:
            if whole:
                watch.prove(bound)
            watch.note((0, ticks))

        left = watch.seconds_left
        proof = solve_exact(
            small,
            start,
            seconds=self.seconds if left is None else min(self.seconds, left),
            gap=max(self.gap, watch.gap),
            workers=self.workers,
            seed=seed,
            bound=watch.bound,
            on_progress=tell,
        )
        if proof.feasible and not whole:
            return Solution(proof.schedule)
        if proof.feasible:
            return Solution(proof.schedule, {"constraint programme": proof.bound})
        if proof.proved and whole:
            raise Infeasible(
                "B501", "no plan fits: no way to spread what persists and what is made", help=_MORE_MEMORY, proved=True
            )
        raise failure or Infeasible("B502", "'exact' found no plan that fits", help=_MORE_MEMORY, proved=False)

    def _is_small(self, a: Arrays) -> bool:
        """Whether all groups can be moved; loads take a smaller programme than moments."""
        return len(a.group_ptr) - 1 <= self.groups * (1 if a.objective == LATENCY else _LOADS)

    def _start(
        self, problem: Problem, views: Sequence[Variant], seed: int, watch: Watch
    ) -> tuple[Schedule, Infeasible | None]:
        """What `auto` finds, or, when it finds nothing that fits, everything on the largest device, and why."""
        try:
            return Auto().solve(problem, views, seed, watch).schedule, None
        except Infeasible as error:
            largest = int(problem.arrays.cap.argmax())
            return Schedule(np.full(len(problem.graph), largest, np.int64), problem.arrays.order), error


_MORE_MEMORY = "give the devices more memory, or use a smaller batch"
