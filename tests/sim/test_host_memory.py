"""Devices that work in host memory: what transfers cost them, by hand, and bounds by brute force."""

from dataclasses import replace
from itertools import product
from random import Random
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baechi.cost import Problem
from baechi.cost.compute import graph_seconds, op_seconds
from baechi.ir.cluster import CONTENTIONS, Cluster, Contention, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.models.graphs import random_dag
from baechi.sim import Schedule, bounds, evaluate
from baechi.sim.load import loads

ACC, CPU = Device("acc", 1 << 40), Device("cpu", 1 << 40, in_host_memory=True)
S = 10**12


def fan() -> Graph:
    """One op of 1 s whose tensor two others read; each transfer takes 5 s, each reader 2 s and on the host 7 s."""
    first = Op("a", "op", outputs=(Tensor("x", seconds=5.0),), seconds=1.0, host_seconds=3.0)
    return Graph((first, *(Op(name, "op", ("x",), seconds=2.0, host_seconds=7.0) for name in "bc")))


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ((0, 0, 1), [3 + 5, 7]),  # the accelerator writes what the host reads
        ((1, 0, 0), [4 + 5, 3]),  # and reads what the host made, once
        ((1, 1, 1), [0, 17]),
        ((0, 1, 1), [1 + 5, 14]),
    ],
)
def test_a_host_is_loaded_by_its_ops_alone(device: tuple[int, ...], expected: list[int]) -> None:
    a = Problem(fan(), Cluster((ACC, CPU))).arrays
    assert loads(a, np.array(device)).tolist() == [n * S for n in expected]


def test_between_hosts_nobody_pays() -> None:
    a = Problem(fan(), Cluster((CPU, replace(CPU, name="other")))).arrays
    assert loads(a, np.array([0, 1, 1])).tolist() == [3 * S, 14 * S]


def test_an_op_takes_its_own_time_on_a_host() -> None:
    slow = replace(CPU, speed=0.5)
    op, plain = Op("a", "op", seconds=1.0, host_seconds=3.0), Op("b", "op", seconds=1.0)
    assert [op_seconds(op, d) for d in (ACC, CPU, slow)] == [1.0, 3.0, 6.0]
    assert [op_seconds(plain, d) for d in (ACC, CPU, slow)] == [1.0, 1.0, 2.0]
    assert graph_seconds(Graph((op, plain)), slow).tolist() == [6.0, 2.0]


@pytest.mark.parametrize(("contention", "end"), [("parallel", 6), ("duplex", 11), ("sequential", 11)])
def test_the_lane_of_an_accelerator_is_taken_and_that_of_a_host_is_not(contention: Contention, end: int) -> None:
    """Two transfers of 5 s after ops of 1 s: one after the other out of one accelerator, side by side into the host."""
    makers = [Op(f"a{k}", "op", outputs=(Tensor(f"x{k}", seconds=5.0),), seconds=1.0 * (k == 0)) for k in range(2)]
    graph = Graph((*makers, Op("last", "op", ("x0", "x1"), seconds=0.0)))
    cluster = Cluster((ACC, replace(ACC, name="acc1"), CPU), contention=contention)
    a = Problem(graph, cluster).arrays
    order = np.arange(3)
    assert evaluate(a, Schedule(np.array([0, 0, 2]), order))[0].makespan == end * S
    assert evaluate(a, Schedule(np.array([0, 1, 2]), order))[0].makespan == 6 * S
    assert evaluate(a, Schedule(np.array([2, 2, 0]), order))[0].makespan == end * S


def step(seed: int, ops: int) -> Graph:
    """A random step whose ops take times of their own on a host, and hold what persists."""
    r = Random(seed)
    made = random_dag(seed, ops, groups=seed % 2 == 0, reach=3, zero_cost=0.1)
    times = [r.choice([None, 0.0, 2e-5, 3e-4]) for _ in made.ops]
    held = [r.choice([0, 10, 20]) for _ in made.ops]
    return made.with_ops(
        replace(op, host_seconds=t, persistent_bytes=n) for op, t, n in zip(made.ops, times, held, strict=True)
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    ops=st.integers(2, 6),
    paying=st.integers(0, 2),
    hosts=st.integers(1, 2),
    latency=st.sampled_from([0.0, 1e-5, 1e-3]),
)
def test_no_load_beats_the_bounds(seed: int, ops: int, paying: int, hosts: int, latency: float) -> None:
    accelerators = [replace(ACC, name=f"acc{k}", speed=1.0 + k) for k in range(paying)]
    cpus = [replace(CPU, name=f"cpu{k}", speed=1.0 + k) for k in range(hosts)]
    cluster = Cluster((*accelerators, *cpus), Link(latency, 1e9))
    free = Problem(step(seed, ops), cluster, objective="throughput")
    a, devices = free.arrays, paying + hosts
    homes = [np.array(home)[a.group] for home in product(range(devices), repeat=len(a.group_ptr) - 1)]
    held = np.array([np.bincount(device, a.persistent, devices) for device in homes])
    highest = np.array([loads(a, device).max() for device in homes])
    for cap in np.unique(held[:, :paying].max(axis=1)) if paying else [0]:
        caps = np.array([max(1, cap)] * paying + [1 << 40] * hosts).astype(np.int64)
        best = highest[(held <= caps).all(axis=1)].min()
        for name, seconds in bounds(free.with_caps(caps)).proofs.items():
            assert seconds * S <= best * (1 + 1e-12), (name, cap)


@pytest.mark.parametrize("seed", range(20))
def test_no_schedule_beats_the_bounds_of_one_step(brute: ModuleType, reference: ModuleType, seed: int) -> None:
    cluster = Cluster((ACC, CPU), brute.LINK, contention=CONTENTIONS[seed % 3])
    problem = Problem(step(seed, 4), cluster)
    found = brute.every_schedule(problem, list(reference.linear_extensions(problem.graph)))
    best = min(evaluate(problem.arrays, schedule)[0].makespan for schedule in found)
    for name, seconds in bounds(problem).proofs.items():
        assert seconds * S <= best * (1 + 1e-12), name
