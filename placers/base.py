"""What a placer is, and the one road from its schedules to a plan that fits."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import numpy as np

from baechi.cost.problem import Ints, Problem
from baechi.cost.table import CostTable
from baechi.errors import Infeasible
from baechi.ir.bulk import uncollected
from baechi.ir.cluster import Cluster
from baechi.ir.graph import Graph
from baechi.ir.plan import Bounds, Placed, Plan, Prediction
from baechi.placers.effort import visits
from baechi.placers.repair import repair
from baechi.placers.variants import Found, Variant, variants
from baechi.placers.watch import Progress, Watch
from baechi.sim.bounds import bounds
from baechi.sim.evaluate import Judged, Schedule, evaluate, judge, orders, plan_schedule, score, transfer_keys
from baechi.sim.infeasible import explain_infeasible
from baechi.sim.load import loads
from baechi.sim.state import Run
from baechi.sim.transfers import Transfers
from baechi.units import TICKS_PER_SECOND, format_bytes, to_seconds
from baechi.version import __version__

__all__ = ["Placer", "Scored", "Solution", "best_of", "make_plan", "mends_few", "repriced"]

_MENDED = 20_000  # visits up to which every schedule that is over a cap is mended
_NEAR = 0.05  # of the bound, so near to it that mending is not worth its time


@dataclass(frozen=True)
class Placer(ABC):
    """A way to place a graph; its options are its fields.

    A new placer gives its `name` and its `schedules`; how they are judged, repaired, verified and
    written down as a plan is the same for all.
    """

    name: ClassVar[str]
    repairs: ClassVar[bool] = True
    """Whether a schedule that is over a cap is mended; one that says exactly what goes where is not."""
    coarsens: ClassVar[bool] = True
    """Whether it may also look at a graph whose ops were drawn together."""
    searches: ClassVar[bool] = False
    """Whether it goes on looking for better plans, so that a bound worth some time tells it how near it is."""

    @abstractmethod
    def schedules(self, problem: Problem, seed: int) -> Iterator[Found]:
        """Schedules, or placements alone, to choose from; none of them needs to fit."""

    def solve(self, problem: Problem, views: Sequence[Variant], seed: int, watch: Watch) -> "Solution":
        """The best schedule for any of the views of a problem, mended where it is over a cap.

        Where mending takes long (`mends_few`) and the best that is known is near the bound, only what is shorter is mended.

        Raises:
            Infeasible: B502 when it does not fit.
        """
        views = views if self.coarsens else views[:1]
        found = [best_of(problem, self.lifted(view, seed)) for view in views]
        best = min(found, key=lambda one: one.score)
        if best.score[0] == 0:
            return Solution(best.schedule, judged=best.judged)
        if not self.repairs:
            raise _over(self, problem, best.schedule)
        if mends_few(problem) and watch.is_near(_NEAR) and (watch.ticks or 0) <= best.score[1]:
            raise _not_found(self, problem, best.schedule)
        mended = (repair(view, one.schedule, seed) for view, one in zip(views, found, strict=True))
        best = best_of(problem, mended)
        if best.score[0] > 0:
            raise _not_found(self, problem, best.schedule)
        return Solution(best.schedule)

    def lifted(self, view: Variant, seed: int) -> Iterator[Schedule]:
        """Its schedules for a view, as schedules of the whole step."""
        return view.lifted(self.schedules(view.problem, seed))

    def place(self, graph: Graph, cluster: Cluster, *, table: CostTable | None = None, seed: int = 0) -> Plan:
        """Place `graph` on `cluster`.

        Args:
            graph: the training step.
            cluster: devices with memory in bytes.
            table: measured op times.
            seed: of random choices.

        Returns:
            A plan that fits every cap by the simulator.

        Raises:
            Infeasible: B501 when no plan can fit, B502 when none was found.
        """
        return make_plan(self, Problem(graph, cluster, table), seed)


def make_plan(placer: Placer, problem: Problem, seed: int, show: Callable[[Progress], None] | None = None) -> Plan:
    """Run a placer and write down what it found; see `Placer.place`.

    Args:
        placer: the placer.
        problem: what to place; its objective is what the plan is judged by.
        seed: of random choices.
        show: called now and then by placers that search.
    """
    began = time.process_time()
    proofs = bounds(problem, thorough=placer.searches)
    watch = Watch(show, round(proofs.step_seconds * TICKS_PER_SECOND))
    try:
        views = tuple(variants(problem)) if placer.coarsens else (Variant.plain(problem),)
        solution = placer.solve(problem, views, seed, watch)
        schedule, run, x = _settled(placer, problem, solution)
    except Infeasible as error:
        raise explain_infeasible(problem) or error from None
    more = {name: to_seconds(ticks) for name, ticks in solution.proved.items()}
    proofs = Bounds({**proofs.proofs, **more})
    with uncollected():
        return _write(placer, problem, schedule, run, x, proofs, time.process_time() - began, seed)


def repriced(problem: Problem, plan: Plan) -> Plan:
    """The same plan, with what the simulator and the lower bounds say of it in this problem: by other op times.

    Raises:
        BaechiError: B402 when it is for another graph, B403 when it cannot be carried out.
    """
    schedule = plan_schedule(problem, plan)
    run, _ = evaluate(problem.arrays, schedule)
    return replace(plan, predicted=_predicted(problem, schedule.device, run), bounds=bounds(problem))


def mends_few(problem: Problem) -> bool:
    """Whether mending a schedule takes so long that it is not done for next to nothing."""
    return visits(problem.arrays) > _MENDED


class Solution(NamedTuple):
    """A schedule that fits, and lower bounds in ticks, by name, that were proved on the way.

    `judged` is what the simulator said of the schedule, if it was asked.
    """

    schedule: Schedule
    proved: Mapping[str, int] = MappingProxyType({})
    judged: Judged | None = None


class Scored(NamedTuple):
    """A schedule and its `score`."""

    score: tuple[int, int]
    schedule: Schedule
    judged: Judged


def best_of(problem: Problem, schedules: Iterable[Schedule]) -> Scored:
    """The schedule that is least over the caps, and of those the shortest; of equals the first."""
    judged = ((judge(problem.arrays, schedule), schedule) for schedule in schedules)
    scored = (Scored(one.score, schedule, one) for one, schedule in judged)
    return min(scored, key=lambda one: one.score)


def _settled(placer: Placer, problem: Problem, solution: Solution) -> tuple[Schedule, Run, Transfers]:
    """The schedule with its transfers in the order that the plan will keep, and the step in that order.

    Where the simulator chose, its choice is the order: keeping to it sends everything at the same times.
    """
    schedule = solution.schedule
    _, run, x = solution.judged or judge(problem.arrays, schedule)
    if schedule.sent is None:
        schedule = schedule._replace(sent=np.column_stack([x.tensor, x.destination])[run.x_order])
    if (run.peak > problem.arrays.cap).any():
        raise _not_found(placer, problem, schedule)
    return schedule, run, x


def _over(placer: Placer, problem: Problem, schedule: Schedule) -> Infeasible:
    run, _ = evaluate(problem.arrays, schedule)
    worst = int((run.peak - problem.arrays.cap).argmax())
    name, cap = problem.cluster.devices[worst].name, int(problem.arrays.cap[worst])
    need = format_bytes(int(run.peak[worst]))
    return Infeasible(
        "B502",
        f"'{placer.name}' does not fit: {name} needs {need}, it has {format_bytes(cap)}",
        help="another placer may fit: try --placer auto",
        proved=False,
    )


def _not_found(placer: Placer, problem: Problem, schedule: Schedule) -> Infeasible:
    run, _ = evaluate(problem.arrays, schedule)
    excess, _ = score(problem.arrays, schedule)
    caps = problem.arrays.cap
    factor = float((run.peak / caps).max())
    return Infeasible(
        "B502",
        f"'{placer.name}' found no plan that fits (not proved impossible): its best is {format_bytes(excess)} over",
        help=f"devices of {format_bytes(int(caps.max() * factor) + 1)} would fit what it found; a smaller batch needs less",
        proved=False,
    )


def _write(
    placer: Placer,
    problem: Problem,
    schedule: Schedule,
    run: Run,
    x: Transfers,
    proofs: Bounds,
    seconds: float,
    seed: int,
) -> Plan:
    graph, cluster = problem.graph, problem.cluster
    order, ptr = orders(schedule.device, schedule.sequence, len(cluster))
    names, ops = [d.name for d in cluster.devices], np.array(list(graph.index), object)
    homes = np.array(names, object)[schedule.device].tolist()
    return Plan(
        graph=graph.digest,
        target=graph.meta.get("target", {"name": graph.name}),
        cluster=cluster,
        placer=Placed(placer.name, asdict(placer), seconds),
        device=dict(zip(graph.index, homes, strict=True)),
        order={name: tuple(ops[order[ptr[d] : ptr[d + 1]]].tolist()) for d, name in enumerate(names)},
        transfers=transfer_keys(problem, schedule.device, run, x),
        predicted=_predicted(problem, schedule.device, run),
        bounds=proofs,
        seed=seed,
        version=__version__,
        objective=problem.objective,
    )


def _predicted(problem: Problem, device: Ints, run: Run) -> Prediction:
    names = [d.name for d in problem.cluster.devices]
    return Prediction(
        to_seconds(run.makespan),
        dict(zip(names, run.peak.tolist(), strict=True)),
        dict(zip(names, map(to_seconds, loads(problem.arrays, device).tolist()), strict=True)),
    )
