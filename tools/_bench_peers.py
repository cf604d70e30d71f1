"""Other people's placers, whose assignments our simulator judges.

A peer that gives an order keeps it; for one that gives only devices the best of ours is taken
(program order and two list schedules). None knows of colocation groups: a group goes where most of its
time was put. None counts memory as a training step takes it: what is over a cap is said in the table.
"""

import heapq
import importlib
import importlib.util
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from _bench_table import Method, NotTried

from baechi.cost.problem import TOKEN, Ints, Problem
from baechi.placers.base import best_of
from baechi.placers.ranks import mean_transfers
from baechi.placers.variants import bound_to
from baechi.sim.evaluate import Schedule

SAGA = {
    "HEFT": "HeftScheduler",
    "CPoP": "CpopScheduler",
    "ETF": "ETFScheduler",
    "FCP": "FCPScheduler",
    "MCT": "MCTScheduler",
    "GDL": "GDLScheduler",
}
_ALL_PAIRS = ("ETF", "GDL")  # these look at every ready task on every device in each step


def peers(
    most_ops: int, names: tuple[str, ...] = ("HEFT", "CPoP", "ETF", "FCP"), *, plain: bool = True
) -> Iterator[Method]:
    """The peers that are installed; those of saga leave out graphs of more than `most_ops` ops, METIS is `plain`."""
    if importlib.util.find_spec("saga"):
        for name in names:
            yield Method(f"saga {name}", _saga(name, most_ops))
    if plain and importlib.util.find_spec("pymetis"):
        yield Method("METIS, plain", _metis)


def _saga(name: str, most_ops: int) -> Callable[[Problem], tuple[Schedule, float, Mapping[str, int]]]:
    def solve(problem: Problem) -> tuple[Schedule, float, Mapping[str, int]]:
        a = problem.arrays
        if len(a.rank) > (most_ops // 4 if name in _ALL_PAIRS else most_ops):
            raise NotTried("too large")
        logging.disable(logging.WARNING)
        scheduler = getattr(importlib.import_module("saga.schedulers"), SAGA[name])()
        network, tasks = _as_saga(problem)
        began = time.process_time()
        made = scheduler.schedule(network, tasks)
        seconds = time.process_time() - began
        device, start = np.zeros(len(a.rank), np.int64), np.zeros(len(a.rank))
        for d in range(len(a.cap)):
            for task in made[str(d)]:
                if task.name.isdigit():  # saga adds a source and a sink of its own
                    device[int(task.name)], start[int(task.name)] = d, task.start
        return Schedule(_grouped(problem, device), _topological(problem, start)), seconds, {}

    return solve


def _as_saga(problem: Problem) -> tuple[Any, Any]:
    """The network and the tasks: times of the first device, its speed beside each other's over all ops."""
    saga: Any = importlib.import_module("saga")
    a = problem.arrays
    totals = a.ticks.sum(axis=0)
    speed = totals[0] / np.maximum(totals, 1)
    names = [str(d) for d in range(len(totals))]
    between = [(p, q, 1.0) for p in names for q in names if p < q]
    network = saga.Network.create(nodes=[(p, float(s)) for p, s in zip(names, speed, strict=True)], edges=between)
    transfer = mean_transfers(a)
    sizes: dict[tuple[str, str], float] = {}
    for i in range(len(a.rank)):
        for t in a.in_t[a.in_ptr[i] : a.in_ptr[i + 1]]:
            edge = str(a.t_op[t]), str(i)
            sizes[edge] = max(sizes.get(edge, 0.0), 0.0 if a.t_ticks[t] == TOKEN else float(transfer[t]))
    return network, saga.TaskGraph.create(
        tasks=[(str(i), float(ticks)) for i, ticks in enumerate(a.ticks[:, 0])],
        dependencies=[(source, reader, size) for (source, reader), size in sizes.items()],
    )


def _grouped(problem: Problem, device: Ints) -> Ints:
    a = problem.arrays
    time_on = np.zeros((len(a.group_ptr) - 1, len(a.cap)))
    np.add.at(time_on, (a.group, device), a.ticks.min(axis=1) + 1e-6)
    return np.asarray(time_on.argmax(axis=1)[a.group], np.int64)


def _topological(problem: Problem, start: Any) -> Ints:
    """Ops by start; a start that is a rounding error too early waits for what it reads."""
    a = problem.arrays
    waits = np.diff(a.in_ptr)
    ready = [(float(start[i]), int(a.rank[i]), i) for i in np.flatnonzero(waits == 0).tolist()]
    heapq.heapify(ready)
    order = []
    while ready:
        i = heapq.heappop(ready)[2]
        order.append(i)
        for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
            for reader in a.rd_op[a.rd_ptr[t] : a.rd_ptr[t + 1]].tolist():
                waits[reader] -= 1
                if waits[reader] == 0:
                    heapq.heappush(ready, (float(start[reader]), int(a.rank[reader]), reader))
    return np.array(order, np.int64)


def _metis(problem: Problem) -> tuple[Schedule, float, Mapping[str, int]]:
    """Ops weighed by time, edges by transfers, one part for each device: what a user of METIS would do."""
    pymetis: Any = importlib.import_module("pymetis")
    a = problem.arrays
    transfer = mean_transfers(a)
    neighbours: list[dict[int, int]] = [{} for _ in a.rank]
    for i in range(len(a.rank)):
        for t in a.in_t[a.in_ptr[i] : a.in_ptr[i + 1]]:
            j = int(a.t_op[t])
            weight = 1 + int(transfer[t]) // 1_000_000
            neighbours[i][j] = neighbours[j][i] = neighbours[i].get(j, 0) + weight
    starts = np.cumsum([0, *(len(row) for row in neighbours)])
    began = time.process_time()
    found = pymetis.part_graph(
        len(a.cap),
        pymetis.CSRAdjacency(starts, np.array([j for row in neighbours for j in row], np.int64)),
        vweights=(a.ticks[:, 0] // 1_000_000).tolist(),
        eweights=[w for row in neighbours for w in row.values()],
    )
    seconds = time.process_time() - began
    device = _grouped(problem, np.array(found.vertex_part, np.int64))
    return best_of(problem, bound_to(problem, device)).schedule, seconds, {}
