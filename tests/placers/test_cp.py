"""`exact` against brute force over every placement and every order of tiny graphs."""

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from types import ModuleType

import numpy as np
import pytest

from baechi.cost import Problem
from baechi.ir.cluster import CONTENTIONS, Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.plan import Objective
from baechi.models.graphs import random_dag
from baechi.placers.cp import solve_exact
from baechi.sim import Schedule, evaluate
from baechi.sim.evaluate import score
from baechi.sim.load import loads


def tiny(seed: int) -> Graph:
    return random_dag(seed, 3 + seed % 3, groups=seed % 4 == 0, reach=3, zero_cost=0.1)


def clusters(seed: int) -> Iterator[Cluster]:
    contention = CONTENTIONS[seed % 3]
    link = Link(1e-6, 1e9)
    speeds = random.Random(seed).choices([0.5, 1.0, 2.0, 5.0], k=3)
    equal = tuple(Device(f"d{k}", 1 << 40) for k in range(3))
    unequal = tuple(replace(d, speed=s) for d, s in zip(equal, speeds, strict=True))
    yield Cluster(equal[:2], link, contention=contention)
    yield Cluster(equal, link, contention=contention)
    yield Cluster(unequal, link, contention=contention)
    yield Cluster(unequal, link, {("d0", "d1"): Link(5e-6, 1e8)}, contention=contention)


def every_placement(problem: Problem) -> Iterator[np.ndarray]:
    a = problem.arrays
    for home in product(range(len(a.cap)), repeat=len(a.group_ptr) - 1):
        yield np.array(home)[a.group]


def lanes(problem: Problem, device: np.ndarray, sequence: np.ndarray) -> Iterator[Schedule]:
    """A schedule with its transfers left to the simulator, and in a few other orders."""
    a = problem.arrays
    plain = Schedule(device, sequence)
    yield plain
    _, x = evaluate(a, plain)
    keys = np.column_stack([x.tensor, x.destination])
    if problem.cluster.contention != "parallel" and 1 < len(keys) <= 5:
        position = np.argsort(sequence)
        for order in permutations_of(len(keys)):
            made = position[a.t_op[keys[order, 0]]]
            if (np.diff(made) >= 0).all() or len(keys) <= 4:
                yield plain._replace(sent=keys[order])


def permutations_of(count: int) -> list[list[int]]:
    from itertools import permutations

    return [list(order) for order in permutations(range(count))]


def best_makespan(reference: ModuleType, problem: Problem) -> int:
    """Least makespan over placements, orders of ops and orders of transfers; those that wait for themselves are out."""
    best = 1 << 62
    sequences = [np.array(order) for order in reference.linear_extensions(problem.graph)]
    for device in every_placement(problem):
        for sequence in sequences:
            for schedule in lanes(problem, device, sequence):
                excess, ticks = score(problem.arrays, schedule)
                if excess == 0:
                    best = min(best, ticks)
    return best


def single(problem: Problem) -> Schedule:
    return Schedule(np.zeros(len(problem.graph), np.int64), problem.arrays.order)


@pytest.mark.parametrize("seed", range(12))
def test_latency_is_that_of_brute_force(reference: ModuleType, seed: int) -> None:
    for cluster in clusters(seed):
        problem = Problem(tiny(seed), cluster)
        best = best_makespan(reference, problem)
        proof = solve_exact(problem.arrays, single(problem), seconds=60, workers=1)
        assert proof.feasible
        assert proof.bound <= best
        assert score(problem.arrays, proof.schedule) == (0, best)
        assert proof.proved


@pytest.mark.parametrize("seed", range(12))
def test_throughput_is_that_of_brute_force(seed: int) -> None:
    for cluster in clusters(seed):
        problem = Problem(tiny(seed + 2), cluster, objective="throughput")
        best = min(int(loads(problem.arrays, device).max()) for device in every_placement(problem))
        proof = solve_exact(problem.arrays, single(problem), seconds=60, workers=1)
        assert (proof.bound, proof.proved, proof.feasible) == (best, True, True)
        assert score(problem.arrays, proof.schedule) == (0, best)


@pytest.mark.parametrize("objective", ["latency", "throughput"])
@pytest.mark.parametrize("seed", range(8))
def test_under_caps_the_proof_is_right(reference: ModuleType, seed: int, objective: Objective) -> None:
    """Every bound holds; what is proved impossible is; most often the optimum itself is found."""
    r, cluster = random.Random(seed), next(iter(clusters(seed)))
    free = Problem(tiny(seed), cluster, objective=objective)
    sequences = [np.array(order) for order in reference.linear_extensions(free.graph)]
    schedules = [s for d in every_placement(free) for q in sequences for s in lanes(free, d, q)]
    runs = [(evaluate(free.arrays, s)[0], score(free.arrays, s)) for s in schedules]
    runs = [(run, ticks) for run, (excess, ticks) in runs if excess == 0]
    top = int(max(run.peak.max() for run, _ in runs))
    for _ in range(6):
        caps = np.array([r.randint(top // 3, top + 1) for _ in range(2)])
        best = min((ticks for run, ticks in runs if (run.peak <= caps).all()), default=None)
        problem = free.with_caps(caps)
        proof = solve_exact(problem.arrays, single(problem), seconds=60, workers=1)
        found = score(problem.arrays, proof.schedule)
        if best is None:
            assert not proof.feasible
        else:
            assert proof.bound <= best
            assert proof.feasible or not proof.proved
            assert not proof.feasible or found[1] >= best
            assert not (proof.feasible and proof.proved) or found == (0, best)
