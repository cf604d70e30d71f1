"""What a placer is, and the one road from its schedules to a plan that fits."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

import baechi
from baechi.cost.problem import Ints, Problem
from baechi.cost.table import CostTable
from baechi.errors import BaechiError, Infeasible
from baechi.ir.cluster import Cluster
from baechi.ir.graph import Graph
from baechi.ir.plan import Placed, Plan, Prediction
from baechi.placers.repair import repair
from baechi.placers.variants import Variant, variants
from baechi.sim.bounds import bounds, explain_infeasible
from baechi.sim.engine import Run
from baechi.sim.evaluate import Schedule, evaluate, excess_bytes, orders, transfer_keys
from baechi.units import format_bytes, to_seconds

__all__ = ["Placer", "make_plan", "natural"]


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

    @abstractmethod
    def schedules(self, problem: Problem, seed: int) -> Iterator[Schedule]:
        """Schedules to choose from, none of which needs to fit."""

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


def natural(problem: Problem) -> Ints:
    """All ops in topological order, program order wherever that is one."""
    return np.argsort(problem.arrays.rank)


def make_plan(placer: Placer, problem: Problem, seed: int, target: Mapping[str, Any] | None = None) -> Plan:
    """Run a placer, keep its best schedule by the simulator, mend it where it is over a cap, and
    write it down; see `Placer.place`."""
    began = time.process_time()
    best = _best(placer, problem, seed)
    if excess_bytes(problem.arrays, best[1].peak) > 0:
        proof = explain_infeasible(problem)
        if proof is not None:
            raise proof
        if not placer.repairs:
            raise _over(placer, problem, best[1])
        mended = repair(problem, best[0], seed)
        best = (mended, evaluate(problem.arrays, mended)[0])
        if excess_bytes(problem.arrays, best[1].peak) > 0:
            raise _not_found(placer, problem, best[1])
    seconds = time.process_time() - began
    return _write(placer, problem, best[0], seconds, seed, target or {})


def _best(placer: Placer, problem: Problem, seed: int) -> tuple[Schedule, Run]:
    best: tuple[Schedule, Run] | None = None
    score = (0, 0)
    for variant in variants(problem) if placer.coarsens else (Variant.plain(problem),):
        for schedule in placer.schedules(variant.problem, seed):
            for lifted in variant.lift(schedule):
                run, _ = evaluate(problem.arrays, lifted)
                this = (excess_bytes(problem.arrays, run.peak), run.makespan)
                if best is None or this < score:
                    best, score = (lifted, run), this
    if best is None:
        raise BaechiError("B503", f"placer '{placer.name}' gave no schedule")
    return best


def _over(placer: Placer, problem: Problem, run: Run) -> Infeasible:
    worst = int((run.peak - problem.arrays.cap).argmax())
    name, cap = problem.cluster.devices[worst].name, int(problem.arrays.cap[worst])
    need = format_bytes(int(run.peak[worst]))
    return Infeasible(
        "B502",
        f"'{placer.name}' does not fit: {name} needs {need}, it has {format_bytes(cap)}",
        help="another placer may fit: try --placer auto",
        proved=False,
    )


def _not_found(placer: Placer, problem: Problem, run: Run) -> Infeasible:
    excess = excess_bytes(problem.arrays, run.peak)
    caps = problem.arrays.cap
    factor = float((run.peak / caps).max())
    return Infeasible(
        "B502",
        f"'{placer.name}' found no plan that fits (not proved impossible): its best is {format_bytes(excess)} over",
        help=f"devices of {format_bytes(int(caps.max() * factor) + 1)} would fit what it found; a smaller batch needs less",
        proved=False,
    )


def _write(
    placer: Placer, problem: Problem, schedule: Schedule, seconds: float, seed: int, target: Mapping[str, Any]
) -> Plan:
    a, graph, cluster = problem.arrays, problem.graph, problem.cluster
    run, x = evaluate(a, schedule)
    order, ptr = orders(schedule.device, schedule.sequence, len(cluster))
    names = [d.name for d in cluster.devices]
    return Plan(
        graph=graph.digest,
        target=target or graph.meta.get("target", {"name": graph.name}),
        cluster=cluster,
        placer=Placed(placer.name, asdict(placer), seconds),
        device={op.name: names[d] for op, d in zip(graph.ops, schedule.device.tolist(), strict=True)},
        order={
            name: tuple(graph.ops[i].name for i in order[ptr[d] : ptr[d + 1]].tolist()) for d, name in enumerate(names)
        },
        transfers=transfer_keys(problem, schedule.device, run, x),
        predicted=Prediction(to_seconds(run.makespan), dict(zip(names, run.peak.tolist(), strict=True))),
        bounds=bounds(problem),
        seed=seed,
        version=baechi.__version__,
    )
