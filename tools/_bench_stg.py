"""Random task graphs of the Standard Task Graph set's kinds, whose optima CP-SAT proves."""

from collections.abc import Iterable, Iterator

from _bench_table import Method

from baechi.cost.problem import Problem
from baechi.ir.cluster import UNLIMITED_BYTES, Cluster, Device
from baechi.ir.graph import Graph
from baechi.models.graphs import STG_SHAPES, STG_TIMES, stg
from baechi.placers.apart import call_solver
from baechi.sim.evaluate import score

__all__ = ["least_makespan", "optimum", "stg_table"]

_PROCESSORS = (2, 4, 8)


def stg_table(sizes: list[int], graphs: int, seconds: float, methods: Iterable[Method]) -> None:
    """For each placer and size: how many are at the optimum, the mean gap, CPU seconds for each graph."""
    rows = list(methods)
    cells: dict[str, list[str]] = {method.name: [] for method in rows}
    known = []
    for size in sizes:
        solved = list(_solved(size, graphs, seconds))
        known.append(f"{size} tasks, {len(solved)} proved optima of {graphs}")
        for method in rows:
            cells[method.name].append(_cell(method, solved))
    print("\n### Task graphs of the Standard Task Graph kinds: at the optimum, mean gap, CPU seconds a graph\n")
    print("| placer | " + " | ".join(known) + " |")
    print("|---|" + "---|" * len(sizes))
    for name, row in cells.items():
        print(f"| {name} | " + " | ".join(row) + " |", flush=True)


def _cell(method: Method, solved: list[tuple[Problem, int]]) -> str:
    hits, gap, cpu = 0, 0.0, 0.0
    for problem, best in solved:
        schedule, seconds, _ = method.solve(problem)
        ticks = score(problem.arrays, schedule)[1]
        hits += ticks == best
        gap += ticks / best - 1
        cpu += seconds
    count = max(1, len(solved))
    return f"{100 * hits / count:.0f}%, +{100 * gap / count:.3f}% ({cpu / count:.3g} s)"


def _solved(size: int, graphs: int, seconds: float) -> Iterator[tuple[Problem, int]]:
    for k in range(graphs):
        graph = stg(size, k, shape=STG_SHAPES[k % len(STG_SHAPES)], times=STG_TIMES[k // 4 % len(STG_TIMES)])
        processors = _PROCESSORS[k % len(_PROCESSORS)]
        best = optimum(graph, processors, seconds)
        if best is not None:
            devices = tuple(Device(f"proc:{d}", UNLIMITED_BYTES) for d in range(processors))
            yield Problem(graph, Cluster(devices, contention="parallel")), best * 10**9


def optimum(graph: Graph, processors: int, seconds: float) -> int | None:
    """The least makespan in milliseconds on equal processors without transfers, or None when it was not proved."""
    index = {op.name: i for i, op in enumerate(graph.ops)}
    times = [round((op.seconds or 0.0) * 1000) for op in graph.ops]
    before = [(index[graph.producer[t].name], index[op.name]) for op in graph.ops for t in op.inputs]
    found: int | None = call_solver("_bench_stg:least_makespan", times, before, processors, seconds)
    return found


def least_makespan(times: list[int], before: list[tuple[int, int]], processors: int, seconds: float) -> int | None:
    """The same from times and pairs of which one waits for the other.

    Equal processors need no assignment: at most so many tasks run at once.
    """
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    horizon = sum(times)
    start = [model.new_int_var(0, horizon - t, str(i)) for i, t in enumerate(times)]
    spans = [model.new_fixed_size_interval_var(start[i], t, str(i)) for i, t in enumerate(times) if t]
    model.add_cumulative(spans, [1] * len(spans), processors)
    for first, then in before:
        model.add(start[then] >= start[first] + times[first])
    end = model.new_int_var(0, horizon, "end")
    for i, t in enumerate(times):
        model.add(end >= start[i] + t)
    model.add(end >= -(-horizon // processors))  # the work bound; times are whole
    model.minimize(end)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 1
    return round(solver.objective_value) if solver.solve(model) == cp_model.OPTIMAL else None
