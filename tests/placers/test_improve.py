"""Local search against brute force, and what it promises of every start."""

from types import ModuleType

import numpy as np
import pytest

from baechi.cost import Problem
from baechi.ir.cluster import CONTENTIONS, Cluster, Device, Link
from baechi.models.graphs import random_dag
from baechi.placers.repair import repair
from baechi.placers.search import improve, tries_for
from baechi.placers.variants import Variant
from baechi.sim import Schedule, evaluate
from baechi.sim.evaluate import score


def make_problem(seed: int, n: int, devices: int, nbytes: int = 1 << 40) -> Problem:
    cluster = Cluster(
        tuple(Device(f"d{k}", nbytes, speed=1.0 + k % 2) for k in range(devices)),
        Link(2e-6, 1e8),
        contention=CONTENTIONS[seed % 3],
    )
    return Problem(random_dag(seed, n, groups=seed % 2 == 0), cluster)


def random_start(problem: Problem, seed: int) -> Schedule:
    a = problem.arrays
    home = np.random.default_rng(seed).integers(0, len(a.cap), len(a.group_ptr) - 1)
    return Schedule(home[a.group], np.argsort(a.rank))


@pytest.mark.parametrize("seed", range(20))
def test_it_is_never_worse_than_its_start(seed: int) -> None:
    problem = make_problem(seed, 40, 3, nbytes=4000)
    a, start = problem.arrays, random_start(problem, seed)
    for tries in (0, 1, 50, 500):
        better = improve(a, start, tries=tries, seed=seed)
        assert score(a, better) <= score(a, start)
        assert sorted(better.sequence.tolist()) == list(range(40))
        for group in range(len(a.group_ptr) - 1):
            assert len(set(better.device[a.group == group].tolist())) == 1


@pytest.mark.parametrize("seed", range(4))
def test_the_same_seed_finds_the_same(seed: int) -> None:
    problem = make_problem(seed, 40, 3)
    start = random_start(problem, seed)
    one, two = (improve(problem.arrays, start, tries=300, seed=7) for _ in range(2))
    assert one.device.tolist() == two.device.tolist()


def test_it_finds_the_best_placement_of_a_few_ops(brute: ModuleType) -> None:
    """At least as good as every placement in the order of its start, from a cool and a warm beginning."""
    for seed in range(12):
        problem = make_problem(seed, 7, 2)
        a, start = problem.arrays, random_start(problem, seed)
        best = min(score(a, one) for one in brute.every_schedule(problem, [start.sequence]))
        found = (improve(a, start, tries=2000, seed=0, warmth=warmth) for warmth in (0.003, 0.3))
        assert min(score(a, one) for one in found) <= best


def test_repair_finds_the_only_placement_that_fits(brute: ModuleType) -> None:
    """Caps as small as brute force finds possible in the order of the start."""
    fitted = 0
    for seed in range(12):
        problem = make_problem(seed, 7, 2)
        start = random_start(problem, seed)
        peaks = [
            int(evaluate(problem.arrays, one)[0].peak.max()) for one in brute.every_schedule(problem, [start.sequence])
        ]
        tight = problem.with_caps(np.full(2, max(1, min(peaks))))
        fitted += score(tight.arrays, repair(Variant.plain(tight), start, 0))[0] == 0
    assert fitted == 12


def test_tries_shrink_with_the_graph_and_are_none_when_they_would_be_too_few() -> None:
    none, few, many = (
        tries_for(make_problem(1, n, 2).arrays, work) for n, work in ((1000, 1e4), (1000, 1e6), (10, 1e6))
    )
    assert none == 0 < few < many
