"""Forward and backward list scheduling against brute force, published optima, and what it promises."""

from itertools import permutations
from types import ModuleType

import numpy as np
import pytest

from baechi.cost import Problem
from baechi.frontends.stg import read_stg
from baechi.ir.cluster import UNLIMITED_BYTES, Cluster, Contention, Device
from baechi.ir.graph import Graph
from baechi.ir.plan import Objective
from baechi.models.graphs import random_dag, stg
from baechi.placers import Auto
from baechi.placers.search import justify, passes_for
from baechi.sim import Schedule
from baechi.sim.evaluate import score


def machines(graph: Graph, count: int, contention: Contention = "parallel") -> Problem:
    devices = tuple(Device(f"d{k}", UNLIMITED_BYTES) for k in range(count))
    return Problem(graph, Cluster(devices, contention=contention))


def in_order(problem: Problem) -> Schedule:
    """All on the first device."""
    return Schedule(np.zeros(len(problem.graph), np.int64), problem.arrays.order)


def topological(problem: Problem) -> list[tuple[int, ...]]:
    a = problem.arrays
    before = [(int(a.t_op[t]), i) for i in range(len(a.rank)) for t in a.in_t[a.in_ptr[i] : a.in_ptr[i + 1]]]
    every = permutations(range(len(a.rank)))
    return [one for one in every if all(one.index(i) < one.index(j) for i, j in before)]


@pytest.mark.parametrize("seed", range(8))
def test_it_finds_the_optimum_of_a_few_tasks(brute: ModuleType, seed: int) -> None:
    problem = machines(stg(5, seed, shape=("layrprob", "samepred")[seed % 2]), 2)
    best = min(score(problem.arrays, one) for one in brute.every_schedule(problem, topological(problem)))
    assert score(problem.arrays, justify(problem.arrays, in_order(problem), tries=100, seed=0)) == best


def test_grahams_anomaly() -> None:
    """Graham, "Bounds on multiprocessing timing anomalies" (1969): 12 on three processors; lists give 15 on four."""
    text = "9 0 3 0 1 2 0 2 2 0 3 2 0 4 4 1 3 5 4 1 3 6 4 1 3 7 4 1 3 8 9 1 0"
    graph, _ = read_stg(text, "graham")
    for count in (3, 4):
        problem = machines(graph, count)
        assert score(problem.arrays, justify(problem.arrays, in_order(problem), tries=50, seed=0)) == (0, 12 * 10**9)


@pytest.mark.parametrize("seed", range(12))
def test_it_keeps_groups_together_and_is_never_worse_than_its_start(seed: int) -> None:
    problem = machines(random_dag(seed, 30, groups=seed % 2 == 0, zero_cost=0.2), 3)
    a, start = problem.arrays, in_order(problem)
    for tries in (0, 1, 30):
        found = justify(a, start, tries=tries, seed=seed)
        assert score(a, found) <= score(a, start)
        assert sorted(found.sequence.tolist()) == list(range(30))
        assert all(len(set(found.device[a.group == g].tolist())) == 1 for g in range(len(a.group_ptr) - 1))
        again = justify(a, start, tries=tries, seed=seed)
        assert found.device.tolist() == again.device.tolist()
        assert found.sequence.tolist() == again.sequence.tolist()


@pytest.mark.parametrize(("contention", "objective"), [("sequential", "latency"), ("parallel", "throughput")])
def test_it_does_not_try_where_its_passes_do_not_tell_the_objective(
    contention: Contention, objective: Objective
) -> None:
    graph, cluster = stg(20, 1), machines(stg(20, 1), 2, contention).cluster
    assert passes_for(Problem(graph, cluster, objective=objective).arrays, 1e9) == 0
    assert passes_for(machines(graph, 2).arrays, 1e9) > 0


@pytest.mark.parametrize(
    ("n", "seed", "shape", "times", "optimum"),
    [(50, 2, "layrprob", "uniform", 39), (100, 47, "layrpred", "normal", 66)],
)
def test_the_default_placer_finds_optima_that_constraint_programming_proved(
    n: int, seed: int, shape: str, times: str, optimum: int
) -> None:
    """Local search alone ended one above."""
    graph = stg(n, seed, shape=shape, times=times)
    assert Auto().place(graph, machines(graph, 8).cluster).predicted.step_seconds == optimum / 1000
