"""The table of the placer benchmark: methods against cases, all judged by the one simulator."""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from baechi.cost.problem import THROUGHPUT, Problem
from baechi.errors import BaechiError, Infeasible
from baechi.models.graphs import chain
from baechi.placers import Placer
from baechi.placers.variants import Variant, variants
from baechi.placers.watch import Watch
from baechi.sim.bounds import bounds
from baechi.sim.evaluate import Schedule, score
from baechi.units import TICKS_PER_SECOND, format_bytes, to_seconds

Solver = Callable[[Problem], tuple[Schedule, float, Mapping[str, int]]]
"""From a problem to a schedule, the CPU seconds that it took, and lower bounds in ticks that were proved."""


class NotTried(Exception):
    """A method does not take this problem; the message is what the table says."""


@dataclass(frozen=True)
class Case:
    """A column: what is placed."""

    name: str
    problem: Problem


@dataclass(frozen=True)
class Method:
    """A row: who places."""

    name: str
    solve: Solver


@dataclass(frozen=True)
class Cell:
    """What came out: CPU seconds, the objective in ticks, bytes over the caps; or why nothing did."""

    cpu_seconds: float = 0.0
    ticks: int = 0
    excess: int = 0
    why: str = ""


def ours(name: str, placer: Placer, seed: int = 0) -> Method:
    """A placer of this project; its seconds cover all but the arrays and the written plan."""

    def solve(problem: Problem) -> tuple[Schedule, float, Mapping[str, int]]:
        began = time.process_time()
        views = tuple(variants(problem)) if placer.coarsens else (Variant.plain(problem),)
        watch = Watch(bound=round(bounds(problem).step_seconds * TICKS_PER_SECOND))
        solution = placer.solve(problem, views, seed, watch)
        return solution.schedule, time.process_time() - began, solution.proved

    return Method(name, solve)


def run(title: str, cases: Sequence[Case], methods: Iterable[Method]) -> None:
    """Fill a table and print it; what is under way is said on stderr."""
    best = {case.name: round(bounds(case.problem).step_seconds * 1e12) for case in cases}
    rows: list[tuple[str, list[Cell]]] = []
    for method in methods:
        cells = []
        for case in cases:
            print(f"{title}: {method.name} on {case.name}", file=sys.stderr)
            cell, proved = _cell(method, case.problem)
            best[case.name] = max(best[case.name], proved)
            cells.append(cell)
        rows.append((method.name, cells))
    print(f"\n### {title}\n")
    print("| placer | " + " | ".join(case.name for case in cases) + " |")
    print("|---|" + "---|" * len(cases))
    print("| *proved bound* | " + " | ".join(f"{_ms(best[case.name])}" for case in cases) + " |")
    for name, cells in rows:
        shown = (_shown(cell, best[case.name]) for cell, case in zip(cells, cases, strict=True))
        print(f"| {name} | " + " | ".join(shown) + " |", flush=True)


def _cell(method: Method, problem: Problem) -> tuple[Cell, int]:
    try:
        schedule, seconds, proved = method.solve(problem)
    except Infeasible as error:
        return Cell(why="proved impossible" if error.proved else "no plan"), 0
    except NotTried as error:
        return Cell(why=str(error)), 0
    except BaechiError as error:
        return Cell(why=f"({error.code})"), 0
    excess, ticks = score(problem.arrays, schedule)
    return Cell(seconds, ticks, excess), max(proved.values(), default=0)


def _shown(cell: Cell, bound: int) -> str:
    if cell.why:
        return cell.why
    if cell.excess >= 1 << 62:
        return "transfers wait for each other"
    gap = f" +{100 * (cell.ticks / bound - 1):.1f}%" if bound else ""
    over = f", over by {format_bytes(cell.excess)}" if cell.excess else ""
    return f"{_ms(cell.ticks)}{gap} ({cell.cpu_seconds:.3g} s){over}"


def _ms(ticks: int) -> str:
    return f"{to_seconds(ticks) * 1e3:.2f}"


def with_caps(problem: Problem, factor: float) -> Problem:
    """Each device holds `factor` times the average that persists."""
    count = len(problem.cluster)
    cap = int(problem.arrays.persistent.sum() * factor / count)
    return problem.with_caps(np.full(count, cap))


def warm_up(methods: Iterable[Method], cluster_of: Callable[[], Problem] | None = None) -> None:
    """Compile, so that no cell pays for it."""
    for method in methods:
        problem = cluster_of() if cluster_of else _small()
        _cell(method, problem)
        if problem.arrays.objective != THROUGHPUT:
            _cell(method, Problem(problem.graph, problem.cluster, objective="throughput"))


def _small() -> Problem:
    from baechi.ir.cluster import Cluster, Device

    return Problem(chain(12), Cluster(tuple(Device(f"d{k}", 1 << 50) for k in range(2))))
