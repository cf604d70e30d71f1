"""Lower bounds and proofs against brute force over every placement and order of tiny graphs."""

import random
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from baechi.cost import Problem
from baechi.cost.problem import Arrays
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.ir.plan import OBJECTIVES, Objective
from baechi.models.graphs import chain, fork_join, random_dag
from baechi.sim import Schedule, bounds, evaluate, explain_infeasible
from baechi.sim.evaluate import score


def every_schedule(brute: ModuleType, reference: ModuleType, problem: Problem) -> Iterator[Schedule]:
    """Every placement that keeps groups together, with every topological order."""
    found: Iterator[Schedule] = brute.every_schedule(problem, list(reference.linear_extensions(problem.graph)))
    return found


def clusters(brute: ModuleType, seed: int) -> Iterator[Cluster]:
    unequal = brute.unequal(seed)
    yield brute.cluster(brute.EQUAL[:2], seed)
    yield brute.cluster(unequal[:2] if seed % 2 else unequal, seed)
    yield brute.cluster(unequal[:2], seed, cores={"host0": 1})
    apart = (*unequal[:2], replace(unequal[2], host="other"))
    yield brute.cluster(apart if seed % 2 else apart[1:], seed, cores={"host0": 1, "other": 1})


def measured(a: Arrays, schedule: Schedule) -> int:
    """The objective in ticks."""
    return score(a, schedule)[1]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("seed", range(40))
def test_no_schedule_beats_the_bounds(
    brute: ModuleType, reference: ModuleType, seed: int, objective: Objective
) -> None:
    for cluster in clusters(brute, seed):
        problem = Problem(brute.tiny(seed), cluster, objective=objective)
        best = min(measured(problem.arrays, s) for s in every_schedule(brute, reference, problem))
        found = bounds(problem)
        for name, seconds in found.proofs.items():
            assert seconds * 1e12 <= best * (1 + 1e-12), name
        assert found.step_seconds == max(found.proofs.values()) == found.proofs[found.best]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("seed", range(30))
def test_no_schedule_that_fits_beats_the_bounds(
    brute: ModuleType, reference: ModuleType, seed: int, objective: Objective
) -> None:
    r = random.Random(seed)
    graph = random_dag(seed, 5, groups=seed % 2 == 0, reach=3)
    graph = graph.with_ops(replace(op, persistent_bytes=r.choice([0, 10, 20, 30])) for op in graph.ops)
    link = Link(r.choice([0.0, 1e-5, 1e-3]), 1e9)
    problem = Problem(graph, Cluster(tuple(Device(f"d{k}", 1 << 40) for k in range(2)), link), objective=objective)
    held = [
        (s, np.bincount(s.device, problem.arrays.persistent, 2).max())
        for s in every_schedule(brute, reference, problem)
    ]
    for cap in sorted({int(most) for _, most in held}):
        a = problem.with_caps(np.full(2, cap)).arrays
        best = min(measured(a, s) for s, most in held if most <= cap)
        found = bounds(problem.with_caps(a.cap))
        for name, seconds in found.proofs.items():
            assert seconds * 1e12 <= best * (1 + 1e-12), (cap, name)


def test_the_critical_path_of_a_chain_is_its_length_on_the_fastest_device() -> None:
    devices = (Device("slow", 8), Device("fast", 8, speed=4.0))
    assert bounds(Problem(chain(10, seconds=2e-3), Cluster(devices))).proofs["critical path"] == pytest.approx(5e-3)


@pytest.mark.parametrize("speeds", [(1.0,), (1.0, 1.0), (1.0, 2.0), (1.0, 3.0, 0.25)])
def test_declared_work_spreads_by_speed(speeds: tuple[float, ...]) -> None:
    """Related machines: all work over the sum of the speeds; the odd op has no unit in common with the others."""
    devices = tuple(Device(f"d{k}", 8, speed=s) for k, s in enumerate(speeds))
    graph = fork_join(5, 3)
    graph = graph.with_ops((replace(graph.ops[0], seconds=1.000000007e-3), *graph.ops[1:]))
    serial = sum(op.seconds or 0.0 for op in graph.ops)
    assert bounds(Problem(graph, Cluster(devices))).proofs["work"] == pytest.approx(serial / sum(speeds), rel=1e-9)


@pytest.mark.parametrize(("transfer", "expected"), [(0.0, 4.0), (2.0, 4.0), (1.0, 3.0)])
def test_a_step_takes_a_whole_number_of_the_unit_of_its_times(transfer: float, expected: float) -> None:
    """Three ops of two seconds on two devices: three seconds of work, which only a transfer of one can make odd."""
    ops = [Op(f"op{k}", "op", outputs=(Tensor(f"t{k}", 1, seconds=transfer),), seconds=2.0) for k in range(3)]
    graph = Graph((*ops, Op("end", "op", inputs=("t0", "t1", "t2"), seconds=0.0)))
    cluster = Cluster((Device("a", 1 << 10), Device("b", 1 << 10)))
    assert bounds(Problem(graph, cluster), thorough=False).step_seconds == expected
    assert bounds(Problem(graph, replace(cluster, cores={"host0": 2})), thorough=False).step_seconds == pytest.approx(
        3.0
    )


@pytest.mark.parametrize(("count", "cores"), [(4, 1), (4, 2), (4, 4), (2, 8)])
def test_work_on_shared_cores(count: int, cores: int) -> None:
    devices = tuple(Device(f"d{k}", 8) for k in range(count))
    graph = fork_join(5, 3)
    serial = sum(op.seconds or 0.0 for op in graph.ops)
    found = bounds(Problem(graph, Cluster(devices, cores={"host0": cores})))
    assert found.proofs["work"] == pytest.approx(serial / min(count, cores), rel=1e-9)


def test_two_kinds_of_work_each_go_where_they_are_fast() -> None:
    """Five ops fast on one device, five on the other: the optimum is 5 s, and the bound is near it."""
    rates = {"float32": 1.0, "float16": 0.1}, {"float32": 0.1, "float16": 1.0}
    devices = tuple(Device(f"d{k}", 8, type=f"t{k}", flops_per_second=rate) for k, rate in enumerate(rates))
    graph = Graph(tuple(Op(f"op{k}", "op", flops=1.0, arithmetic=["float32", "float16"][k % 2]) for k in range(10)))
    assert 4.9 <= bounds(Problem(graph, Cluster(devices))).proofs["work"] <= 5.0


@pytest.mark.parametrize("seed", range(60))
def test_what_is_proved_impossible_never_fits(brute: ModuleType, reference: ModuleType, seed: int) -> None:
    graph, r = brute.tiny(seed), random.Random(seed)
    free = Problem(graph, Cluster(tuple(Device(f"d{k}", 1 << 40) for k in range(2)), Link(1e-6, 1e9)))
    peaks = np.unique([evaluate(free.arrays, s)[0].peak for s in every_schedule(brute, reference, free)], axis=0)
    for _ in range(40):
        caps = np.array([r.randint(1, int(peaks.max()) + 1) for _ in range(2)])
        fits = bool((peaks <= caps).all(axis=1).any())
        proof = explain_infeasible(free.with_caps(caps))
        if proof is not None:
            assert proof.proved
            assert proof.code == "B501"
            assert not fits, f"{caps}: {proof}"


def two_devices(cap: int) -> Cluster:
    return Cluster((Device("d0", cap), Device("d1", cap)))


def test_what_persists_is_more_than_there_is() -> None:
    graph = Graph(tuple(Op(f"op{k}", "parameter", persistent_bytes=5, seconds=0.0) for k in range(5)))
    proof = explain_infeasible(Problem(graph, two_devices(12)))
    assert proof is not None
    assert "what persists takes 25 B" in proof.what
    assert explain_infeasible(Problem(graph, two_devices(15))) is None


def test_a_group_is_too_large() -> None:
    graph = Graph(tuple(Op(f"op{k}", "op", persistent_bytes=5, temp_bytes=k, group="g") for k in range(3)))
    proof = explain_infeasible(Problem(graph, two_devices(16)))
    assert proof is not None
    assert "group 'g'" in proof.what
    assert explain_infeasible(Problem(graph, two_devices(17))) is None


def test_an_op_with_what_it_reads_is_too_large() -> None:
    graph = Graph(
        (
            Op("a", "op", outputs=(Tensor("x", 6),), seconds=1.0),
            Op("b", "op", ("x",), (Tensor("y", 4),), temp_bytes=1, seconds=1.0),
        )
    )
    proof = explain_infeasible(Problem(graph, two_devices(10)))
    assert proof is not None
    assert "'b'" in proof.what
    assert explain_infeasible(Problem(graph, two_devices(11))) is None


def fits_somewhere(brute: ModuleType, reference: ModuleType, problem: Problem) -> bool:
    a = problem.arrays
    return any((evaluate(a, s)[0].peak <= a.cap).all() for s in every_schedule(brute, reference, problem))


def test_a_narrow_view_that_is_expanded_again_is_sent_narrow(brute: ModuleType, reference: ModuleType) -> None:
    """x of 1,000 B, a slice of it of 10 B, the slice expanded to 1,000 B: its reader needs a copy of 10 B."""
    graph = Graph(
        (
            Op("make", "op", outputs=(Tensor("x", 1000),), seconds=1.0),
            Op("slice", "view", ("x",), (Tensor("s", 10, alias_of="x"),), seconds=0.0),
            Op("expand", "view", ("s",), (Tensor("e", 1000, alias_of="s"),), seconds=0.0),
            Op("read", "op", ("e",), temp_bytes=500, seconds=1.0),
        )
    )
    problem = Problem(graph, two_devices(1000))
    assert fits_somewhere(brute, reference, problem)
    assert explain_infeasible(problem) is None


def test_two_tensors_that_the_same_bytes_hold(brute: ModuleType, reference: ModuleType) -> None:
    """A parameter that is given out twice takes its memory once."""
    twice = (Tensor("p", 100, held=100), Tensor("q", 100, held=100))
    graph = Graph(
        (
            Op("parameter", "parameter", outputs=twice, persistent_bytes=100, seconds=0.0),
            Op("read", "op", ("p", "q"), temp_bytes=20, seconds=1.0),
        )
    )
    problem = Problem(graph, two_devices(150))
    assert fits_somewhere(brute, reference, problem)
    assert explain_infeasible(problem) is None
