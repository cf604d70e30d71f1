"""The parts of the local search against the simulator and against plain Python."""

from itertools import combinations_with_replacement, islice

import numpy as np
import pytest

from baechi.cost import Problem
from baechi.cost.jit import kernel
from baechi.cost.problem import Arrays, Ints
from baechi.ir.cluster import CONTENTIONS, Cluster, Contention, Device, Link
from baechi.ir.plan import Objective
from baechi.models.graphs import random_dag
from baechi.placers.chain import chain_splits, turns
from baechi.placers.search import improve
from baechi.placers.search.balance import balance
from baechi.placers.search.resequence import resequence
from baechi.placers.search.sweep import NO_LIMIT, fastest_tails, is_exact, sweep
from baechi.sim import Schedule, evaluate
from baechi.sim.evaluate import score
from baechi.sim.load import loads


def make_problem(
    seed: int, n: int, devices: int, contention: Contention = "parallel", objective: Objective = "latency"
) -> Problem:
    made = tuple(Device(f"d{k}", 1 << 40, speed=1.0 + k % 2) for k in range(devices))
    cluster = Cluster(made, Link(2e-6, 1e8), contention=contention)
    return Problem(random_dag(seed, n, groups=seed % 2 == 0), cluster, None, objective)


def random_home(problem: Problem, seed: int) -> np.ndarray:
    a = problem.arrays
    return np.random.default_rng(seed).integers(0, len(a.cap), len(a.group_ptr) - 1)


@kernel
def _swept(a: Arrays, home: Ints, sequence: Ints, limit: int) -> int:
    end, free = np.empty(len(sequence), np.int64), np.empty(len(a.cap), np.int64)
    return sweep(a, home, sequence, np.zeros(len(sequence), np.int64), limit, end, free)


@kernel
def _facts(a: Arrays) -> tuple[Ints, bool]:
    return fastest_tails(a), is_exact(a)


def swept(problem: Problem, home: np.ndarray, sequence: np.ndarray, limit: int = NO_LIMIT) -> int:
    return int(_swept(problem.arrays, home, sequence, limit))


@pytest.mark.parametrize("contention", CONTENTIONS)
@pytest.mark.parametrize("seed", range(6))
def test_a_sweep_is_the_simulated_step_where_nothing_contends_and_never_above_it(
    seed: int, contention: Contention
) -> None:
    problem = make_problem(seed, 30, 3, contention)
    a, home = problem.arrays, random_home(problem, seed)
    simulated = evaluate(a, Schedule(home[a.group], a.order))[0].makespan
    if contention == "parallel":
        assert _facts(a)[1]
        assert swept(problem, home, a.order) == simulated
        assert swept(problem, home, a.order, simulated) == simulated
        assert swept(problem, home, a.order, simulated - 1) > simulated - 1
    else:
        assert not _facts(a)[1]
        assert swept(problem, home, a.order) <= simulated


@pytest.mark.parametrize("seed", range(6))
def test_what_follows_an_op_at_least_is_the_longest_chain_on_the_fastest_devices(seed: int) -> None:
    a = make_problem(seed, 25, 2).arrays
    readers = [
        {int(a.rd_op[k]) for t in range(a.out_ptr[i], a.out_ptr[i + 1]) for k in range(a.rd_ptr[t], a.rd_ptr[t + 1])}
        for i in range(len(a.rank))
    ]

    def behind(i: int) -> int:
        return max((behind(r) + int(a.ticks[r].min()) for r in readers[i]), default=0)

    assert _facts(a)[0].tolist() == [behind(i) for i in range(len(a.rank))]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_a_new_sequence_is_topological_and_keeps_no_device_idle_without_need(seed: int, noise: float) -> None:
    problem = make_problem(seed, 40, 3)
    a, home = problem.arrays, random_home(problem, seed)
    sequence = resequence(a, home, noise)
    turn = np.argsort(sequence)
    assert sorted(sequence.tolist()) == list(range(len(a.rank)))
    for i in range(len(a.rank)):
        for t in a.in_t[a.in_ptr[i] : a.in_ptr[i + 1]]:
            assert turn[a.t_op[t]] < turn[i]
    run, _ = evaluate(a, Schedule(home[a.group], sequence))
    for i, start in enumerate(run.op_start.tolist()):  # each starts when its device is free or its last input comes
        device = home[a.group[i]]
        ends = [int(e) for j, e in enumerate(run.op_end) if home[a.group[j]] == device]
        assert start == 0 or start in ends or start in run.op_end or start in run.x_end


def plain_loads(problem: Problem, device: np.ndarray) -> list[float]:
    """Seconds, from the graph itself."""
    graph, cluster = problem.graph, problem.cluster
    where = {op.name: cluster.devices[d] for op, d in zip(graph.ops, device.tolist(), strict=True)}
    load = {d.name: 0.0 for d in cluster.devices}
    for op in graph.ops:
        source = where[op.name]
        load[source.name] += (op.seconds or 0.0) / source.speed
        for tensor in op.outputs:
            there = {where[r.name].name for r in graph.readers[tensor.name]} - {source.name}
            took = [
                cluster.link_between(source.name, d).seconds(tensor.nbytes)
                if tensor.seconds is None
                else tensor.seconds
                for d in sorted(there)
            ]
            for d, seconds in zip(sorted(there), took, strict=True):
                load[d] += seconds
            load[source.name] += max(took, default=0.0)
    return list(load.values())


@pytest.mark.parametrize("seed", range(8))
def test_the_load_of_a_device_is_what_it_computes_sends_and_receives(seed: int) -> None:
    problem = make_problem(seed, 30, 3)
    device = random_home(problem, seed)[problem.arrays.group]
    assert (loads(problem.arrays, device) / 1e12).tolist() == pytest.approx(plain_loads(problem, device), abs=1e-9)


def every_home(problem: Problem) -> list[np.ndarray]:
    a = problem.arrays
    groups, devices = len(a.group_ptr) - 1, len(a.cap)
    return [np.array(np.unravel_index(k, (devices,) * groups)) for k in range(devices**groups)]


def test_balancing_finds_the_best_placement_of_a_few_groups() -> None:
    for seed in range(8):
        problem = make_problem(seed, 8, 2, objective="throughput")
        problem = on_host(problem, 3) if seed % 2 else problem
        a = problem.arrays
        best = min(int(loads(a, home[a.group]).max()) for home in every_home(problem))
        found = balance(a, random_home(problem, seed), a.order, 4000, seed, 0.1)
        assert loads(a, found[a.group]).max() == best


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_a_search_keeps_what_persists_within_the_caps(objective: Objective) -> None:
    for seed in range(6):
        free = make_problem(seed, 30, 3, objective=objective)
        problem = free.with_caps(np.full(3, int(free.arrays.persistent.sum() + free.arrays.t_bytes.sum()) // 2))
        start = Schedule(np.zeros(30, np.int64), problem.arrays.order)
        found = improve(problem.arrays, start, tries=2000, seed=seed)
        assert score(problem.arrays, found)[0] == 0


@pytest.mark.parametrize("seed", range(6))
def test_the_first_chain_is_the_best_of_all_cuts_of_the_topological_order(seed: int) -> None:
    problem = make_problem(seed, 10, 3, objective="throughput")
    a = problem.arrays
    place, groups = turns(a), len(a.group_ptr) - 1
    cuts = [(i, j) for i in range(groups + 1) for j in range(i, groups + 1)]
    best = min(loads(a, np.searchsorted(np.array(cut), place, side="right")[a.group]).max() for cut in cuts)
    assert loads(a, next(chain_splits(a))[a.group]).max() == best


def on_host(problem: Problem, slower: int) -> Problem:
    """The same with a last device that works in host memory, so many times slower than the first."""
    a = problem.arrays
    ticks = a.ticks.copy()
    ticks[:, -1] = slower * ticks[:, 0]
    pays = np.ones(len(a.cap), np.int64)
    pays[-1] = 0
    return problem.with_arrays(a._replace(ticks=ticks, pays=pays))


@pytest.mark.parametrize("seed", range(8))
def test_the_cut_around_a_host_is_the_best_with_its_work_anywhere_in_the_line(seed: int) -> None:
    """Every choice of a segment for each of two devices, in their order; the host has all else."""
    problem = on_host(make_problem(seed, 9, 3, objective="throughput"), 1 + seed % 4)
    a = problem.arrays
    place, groups = turns(a), len(a.group_ptr) - 1
    ends = combinations_with_replacement(range(groups + 1), 4)
    homes = (np.array([2, 0, 2, 1, 2])[np.searchsorted(end, place, side="right")] for end in ends)
    best = min(int(loads(a, home[a.group]).max()) for home in homes)
    _, around = islice(chain_splits(a), 2)
    assert loads(a, around[a.group]).max() == pytest.approx(best, rel=1e-5)


def test_a_host_that_is_too_small_is_not_cut_around() -> None:
    problem = on_host(make_problem(2, 9, 3), 1)
    a = problem.arrays._replace(persistent=np.full(9, 2), cap=np.array([100, 100, 1]))
    assert all((home != 2).all() for home in chain_splits(a))


def test_chains_that_cannot_fit_are_left_out() -> None:
    problem = make_problem(1, 10, 2)
    heavy = problem.arrays._replace(persistent=np.full(10, 1 << 40), cap=np.full(2, 1 << 40))
    assert not list(chain_splits(heavy))
