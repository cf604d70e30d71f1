"""`exact` against brute force over every placement and every order of tiny graphs."""

import _thread
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from types import ModuleType

import numpy as np
import pytest

from baechi.cost import Problem
from baechi.ir.cluster import CONTENTIONS, Cluster, Contention, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.ir.plan import Objective
from baechi.models.graphs import dag, fork_join, random_dag
from baechi.placers._cp_coarse import drawn_together
from baechi.placers.cp import Exact, solve_exact
from baechi.placers.variants import Variant
from baechi.placers.watch import Watch
from baechi.sim import Schedule, evaluate
from baechi.sim.evaluate import score
from baechi.sim.load import loads


def clusters(brute: ModuleType, seed: int) -> Iterator[Cluster]:
    unequal = brute.unequal(seed)
    yield brute.cluster(brute.EQUAL[:2], seed)
    yield brute.cluster(brute.EQUAL, seed)
    yield brute.cluster(unequal, seed)
    yield brute.cluster(unequal, seed, links={("d0", "d1"): Link(5e-6, 1e8)})
    yield brute.cluster((*brute.EQUAL[:2], replace(unequal[2], in_host_memory=True)), seed)


def lanes(problem: Problem, device: np.ndarray, sequence: np.ndarray) -> Iterator[Schedule]:
    """A schedule with its transfers left to the simulator, and in a few other orders."""
    a = problem.arrays
    plain = Schedule(device, sequence)
    yield plain
    _, x = evaluate(a, plain)
    keys = np.column_stack([x.tensor, x.destination])
    if problem.cluster.contention != "parallel" and 1 < len(keys) <= 5:
        position = np.argsort(sequence)
        for order in map(list, permutations(range(len(keys)))):
            made = position[a.t_op[keys[order, 0]]]
            if (np.diff(made) >= 0).all() or len(keys) <= 4:
                yield plain._replace(sent=keys[order])


def best_makespan(brute: ModuleType, reference: ModuleType, problem: Problem) -> int:
    """Least makespan over placements, orders of ops and orders of transfers; those that wait for themselves are out."""
    best = 1 << 62
    sequences = [np.array(order) for order in reference.linear_extensions(problem.graph)]
    for device in brute.every_placement(problem):
        for sequence in sequences:
            for schedule in lanes(problem, device, sequence):
                excess, ticks = score(problem.arrays, schedule)
                if excess == 0:
                    best = min(best, ticks)
    return best


def single(problem: Problem) -> Schedule:
    return Schedule(np.zeros(len(problem.graph), np.int64), problem.arrays.order)


@pytest.mark.parametrize("seed", range(12))
def test_latency_is_that_of_brute_force(brute: ModuleType, reference: ModuleType, seed: int) -> None:
    for cluster in clusters(brute, seed):
        problem = Problem(brute.tiny(seed), cluster)
        best = best_makespan(brute, reference, problem)
        proof = solve_exact(problem.arrays, single(problem), seconds=60, workers=1)
        assert proof.feasible
        assert proof.bound <= best
        assert score(problem.arrays, proof.schedule) == (0, best)
        assert proof.proved


@pytest.mark.parametrize("seed", range(12))
def test_throughput_is_that_of_brute_force(brute: ModuleType, seed: int) -> None:
    for cluster in clusters(brute, seed):
        problem = Problem(brute.tiny(seed + 2), cluster, objective="throughput")
        best = min(int(loads(problem.arrays, device).max()) for device in brute.every_placement(problem))
        proof = solve_exact(problem.arrays, single(problem), seconds=60, workers=1)
        assert (proof.bound, proof.proved, proof.feasible) == (best, True, True)
        assert score(problem.arrays, proof.schedule) == (0, best)


@pytest.mark.parametrize("objective", ["latency", "throughput"])
@pytest.mark.parametrize("seed", range(8))
def test_under_caps_the_proof_is_right(
    brute: ModuleType, reference: ModuleType, seed: int, objective: Objective
) -> None:
    """Every bound holds; what is proved impossible is; most often the optimum itself is found."""
    r, cluster = random.Random(seed), next(iter(clusters(brute, seed)))
    free = Problem(brute.tiny(seed), cluster, objective=objective)
    sequences = [np.array(order) for order in reference.linear_extensions(free.graph)]
    schedules = [s for d in brute.every_placement(free) for q in sequences for s in lanes(free, d, q)]
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


@pytest.mark.parametrize("contention", CONTENTIONS)
@pytest.mark.parametrize("seed", range(4))
def test_wide_layers_with_dear_transfers(
    brute: ModuleType, reference: ModuleType, seed: int, contention: Contention
) -> None:
    """Two layers of which each op reads half of the other: transfers take longer than ops, and bounds start far off."""
    r = random.Random(seed)
    first = [Op(f"a{k}", "op", outputs=(_sent(f"t{k}", r),), seconds=r.randint(1, 9) * 1e-6) for k in range(3)]
    then = [
        Op(f"b{k}", "op", tuple(sorted(r.sample(["t0", "t1", "t2"], 2))), seconds=r.randint(1, 9) * 1e-6)
        for k in range(3)
    ]
    devices = 3 if seed % 2 and contention == "parallel" else 2  # with lanes, brute force tries orders of transfers too
    problem = Problem(Graph((*first, *then)), Cluster(brute.EQUAL[:devices], contention=contention))
    best = best_makespan(brute, reference, problem)
    proof = solve_exact(problem.arrays, single(problem), seconds=60, workers=1)
    assert proof.proved
    assert score(problem.arrays, proof.schedule) == (0, proof.bound)
    assert proof.bound <= best  # of many transfers, brute force tries few orders
    assert contention != "parallel" or proof.bound == best


@pytest.mark.parametrize("contention", ["duplex", "sequential"])
@pytest.mark.parametrize("seed", range(3))
def test_parts_between_an_entry_and_an_exit_keep_their_lanes(
    brute: ModuleType, reference: ModuleType, seed: int, contention: Contention
) -> None:
    """A fork to three ops and their join, and a reader of the fork beside them, whose transfer is none of that part."""
    r = random.Random(seed)
    fork = Op("fork", "op", outputs=(_sent("a", r), _sent("b", r)), seconds=2e-6)
    inner = [Op(f"op{k}", "op", ("a",), (_sent(f"t{k}", r),), seconds=r.randint(9, 60) * 1e-6) for k in range(3)]
    join, beside = Op("join", "op", ("t0", "t1", "t2"), seconds=2e-6), Op("beside", "op", ("b",), seconds=9e-6)
    speeds = replace(brute.EQUAL[1], speed=1.0 + seed % 2)
    problem = Problem(Graph((fork, *inner, join, beside)), Cluster((brute.EQUAL[0], speeds), contention=contention))
    best = best_makespan(brute, reference, problem)
    proof = solve_exact(problem.arrays, single(problem), seconds=60, workers=1)
    assert proof.proved
    assert score(problem.arrays, proof.schedule) == (0, proof.bound)
    assert proof.bound <= best  # of many transfers, brute force tries few orders


def _sent(name: str, r: random.Random) -> Tensor:
    return Tensor(name, 1, seconds=r.randint(5, 40) * 1e-6)


def test_steps_so_long_that_times_are_rounded() -> None:
    """Two seconds in picoseconds are more units than the solver is given: the search ends all the same."""
    graph = random_dag(1, 8, groups=False)
    graph = graph.with_ops(replace(op, seconds=(op.seconds or 0.0) * 1e4 + 1e-12 * k) for k, op in enumerate(graph.ops))
    problem = Problem(graph, Cluster(tuple(Device(f"d{k}", 1 << 40) for k in range(2)), Link(0.5, 1e8)))
    proof = solve_exact(problem.arrays, single(problem), seconds=20, workers=1)
    assert proof.feasible
    assert proof.bound <= score(problem.arrays, proof.schedule)[1] <= proof.bound * (1 + 1e-9)


def test_ctrl_c_returns_the_best_so_far() -> None:
    """The first progress is answered by what Ctrl-C does."""
    problem = Problem(random_dag(3, 40), Cluster(tuple(Device(f"d{k}", 1 << 40) for k in range(4)), Link(2e-6, 1e8)))
    start, heard = single(problem), []

    def interrupt(ticks: int, bound: int) -> None:
        heard.append((ticks, bound))
        if len(heard) == 1:
            _thread.interrupt_main()

    proof = solve_exact(problem.arrays, start, seconds=300, workers=1, on_progress=interrupt)
    assert heard
    assert score(problem.arrays, proof.schedule) <= score(problem.arrays, start)
    assert all(bound <= ticks for ticks, bound in heard)


def dear_transfers() -> Problem:
    """Forty ops of which one thread refutes a step of a certain length for so long that another looks for plans."""
    graph = dag("layered", 40, 1)
    graph = graph.with_ops(
        replace(op, outputs=tuple(replace(t, seconds=4 * (t.seconds or 0.0)) for t in op.outputs)) for op in graph.ops
    )
    return Problem(graph, Cluster(tuple(Device(f"d{k}", 1 << 40) for k in range(4)), contention="sequential"))


@pytest.mark.parametrize("interrupted", [False, True])
def test_plans_are_looked_for_beside_the_proof(interrupted: bool) -> None:
    """Both threads end when the gap is small enough, or at Ctrl-C."""
    problem = dear_transfers()
    start, heard = single(problem), []

    def listen(ticks: int, bound: int) -> None:
        heard.append((ticks, bound))
        if interrupted and ticks <= 1.1 * bound:
            _thread.interrupt_main()

    gap = 0.0 if interrupted else 0.1
    proof = solve_exact(problem.arrays, start, seconds=300, workers=2, gap=gap, on_progress=listen)
    ticks = score(problem.arrays, proof.schedule)[1]
    assert proof.feasible
    assert proof.bound <= ticks <= 1.1 * proof.bound
    assert all(bound <= found for found, bound in heard)
    assert min(found for found, _ in heard) == ticks


def test_equal_machines_without_transfers() -> None:
    """Eight unit tasks in two levels on three machines: 1 + ceil(7 / 3) moments for one task before all the others."""
    first = Op("first", "op", outputs=(Tensor("t", 0, seconds=0.0),), seconds=1.0)
    others = tuple(Op(f"op{k}", "op", ("t",), seconds=1.0) for k in range(7))
    problem = Problem(Graph((first, *others)), Cluster(tuple(Device(f"d{k}", 1 << 40) for k in range(3))))
    proof = solve_exact(problem.arrays, single(problem), seconds=60, workers=1)
    assert (proof.bound, proof.proved) == (4 * 10**12, True)


@pytest.mark.parametrize("rho", [0.1, 1.0, 10.0])
def test_fork_and_join(rho: float) -> None:
    """Equal chains between a fork and a join: k devices take 2 + 2 rho + 3 ceil(4 / k), one takes 14."""
    graph = fork_join(4, 3, seconds=1.0, transfer_seconds=rho)
    for devices in (2, 4):
        cluster = Cluster(tuple(Device(f"d{k}", 1 << 40) for k in range(devices)), contention="parallel")
        problem = Problem(graph, cluster)
        proof = solve_exact(problem.arrays, single(problem), seconds=60, workers=1)
        assert proof.proved
        assert proof.bound <= min(14.0, 2 + 2 * rho + 3 * (4 / devices)) * 1e12 + 1


def test_a_larger_graph_is_drawn_together_around_its_start() -> None:
    problem = Problem(random_dag(5, 60), Cluster(tuple(Device(f"d{k}", 1 << 40) for k in range(3)), Link(2e-6, 1e8)))
    start = Schedule(np.arange(60) % 3, problem.arrays.order)
    small = drawn_together(problem.arrays, start, 20)
    assert len(small.group_ptr) - 1 < 60
    for g in range(len(small.group_ptr) - 1):
        assert len(set(start.device[small.group == g].tolist())) == 1
    placer = Exact(seconds=5, groups=20, workers=1)
    plan = placer.solve(problem, (Variant.plain(problem),), 0, Watch())
    assert plan.proved == {}
    assert score(problem.arrays, plan.schedule) <= score(problem.arrays, start)
