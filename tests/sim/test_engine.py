"""The engine against the reference simulator, on random graphs, placements, orders and transfers."""

from collections.abc import Iterable
from dataclasses import replace
from graphlib import TopologicalSorter
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baechi.cost import Problem
from baechi.errors import BaechiError
from baechi.ir.cluster import CONTENTIONS, Cluster, Contention, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.ir.plan import TransferKey
from baechi.models.graphs import random_dag
from baechi.sim import Schedule, evaluate, simulate
from baechi.sim.evaluate import transfer_keys

TICKS = 10**12


def make_cluster(count: int, contention: Contention, *, speeds: bool = False, hosts: int = 0) -> Cluster:
    """Devices, the last `hosts` of which work in host memory."""
    devices = tuple(
        Device(f"d{k}", 1 << 40, speed=2.0**k if speeds else 1.0, in_host_memory=k >= count - hosts)
        for k in range(count)
    )
    links = {("d0", "d1"): Link(3e-6, 5e8)} if count > 1 else {}
    return Cluster(devices, Link(2e-6, 1e8), links, contention)


def scattered(graph: Graph, every: int) -> Graph:
    """The same graph, with some of the tensors scattered, views or not."""
    tensors = [t.name for op in graph.ops for t in op.outputs]
    chosen = set(tensors[::every])
    return graph.with_ops(
        replace(op, outputs=tuple(replace(t, scattered=t.name in chosen) for t in op.outputs)) for op in graph.ops
    )


dags = st.builds(
    random_dag,
    st.integers(0, 10**6),
    st.integers(1, 40),
    zero_cost=st.sampled_from([0.0, 0.2, 0.7]),
    declared=st.booleans(),
    shuffled=st.booleans(),
    reach=st.integers(2, 12),
)
graphs = st.builds(scattered, dags, st.integers(1, 4))
clusters = st.builds(
    make_cluster, st.integers(1, 4), st.sampled_from(CONTENTIONS), speeds=st.booleans(), hosts=st.integers(0, 2)
)


def ticks(seconds: float) -> int:
    return round(seconds * TICKS)


@settings(max_examples=120)
@given(graph=graphs, cluster=clusters, seed=st.integers(0, 10**6))
def test_times_and_peaks_are_those_of_the_reference(
    reference: ModuleType, graph: Graph, cluster: Cluster, seed: int
) -> None:
    plan = reference.random_plan(graph, cluster, seed)
    played = reference.play(graph, cluster, plan.device, plan.order, plan.transfers)
    timeline = simulate(Problem(graph, cluster), plan)
    assert {s.op: (s.device, ticks(s.start), ticks(s.end)) for s in timeline.ops} == {
        op.name: (plan.device[op.name], played.start[op.name][0], played.end[op.name][0]) for op in graph.ops
    }
    assert {(s.tensor, s.source, s.destination): (ticks(s.start), ticks(s.end)) for s in timeline.transfers} == {
        key: (played.start[key][0], played.end[key][0]) for key in plan.transfers
    }
    assert ticks(timeline.step_seconds) == played.makespan
    assert timeline.peak_bytes == reference.peaks(graph, cluster, plan.device, plan.transfers, played)
    curves = reference.memory(graph, cluster, plan.device, plan.transfers, played)
    assert {name: instants((ticks(at), nbytes) for at, nbytes in curve) for name, curve in timeline.memory.items()} == {
        name: instants((moment[0], nbytes) for moment, nbytes in curve) for name, curve in curves.items()
    }


def instants(curve: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """What is held after each instant at which that changes."""
    last = list(dict(curve).items())
    return [now for before, now in pairwise([(-1, -1), *last]) if now[1] != before[1]]


@settings(max_examples=50)
@given(graph=graphs, cluster=clusters, seed=st.integers(0, 10**6))
def test_left_to_itself_it_sends_first_what_is_read_first(
    reference: ModuleType, graph: Graph, cluster: Cluster, seed: int
) -> None:
    """And playing the transfers in the order that came out gives the same times and peaks again."""
    problem, random = Problem(graph, cluster), reference.random_plan(graph, cluster, seed)
    names, index = [d.name for d in cluster.devices], {op.name: i for i, op in enumerate(graph.ops)}
    sorter = TopologicalSorter(reference.waits(graph, cluster, random.device, random.order, ()))
    for op in graph.ops:
        sorter.add(op.name, *(graph.producer[name].name for name in op.inputs))
    sequence = [name for name in sorter.static_order() if isinstance(name, str)]
    device = np.array([names.index(random.device[op.name]) for op in graph.ops])
    run, x = evaluate(problem.arrays, Schedule(device, np.array([index[name] for name in sequence])))
    plan = replace(random, transfers=transfer_keys(problem, device, run, x))
    played = reference.play(graph, cluster, plan.device, plan.order, plan.transfers)
    assert run.op_end.tolist() == [played.end[op.name][0] for op in graph.ops]
    assert (run.done, run.makespan) == (len(graph), played.makespan)
    assert dict(zip(names, run.peak.tolist(), strict=True)) == reference.peaks_of(graph, plan)
    rank = {
        key: min(sequence.index(op.name) for op in graph.readers[key[0]] if plan.device[op.name] == key[2])
        for key in plan.transfers
    }
    for at, key in enumerate(plan.transfers):
        for later in plan.transfers[at + 1 :]:
            if rank[later] < rank[key]:
                could = lanes_free(cluster.contention, played, plan.transfers[:at], later)
                assert max(could, played.end[graph.producer[later[0]].name]) > played.start[key]


def lanes_free(
    contention: Contention, played: Any, earlier: Iterable[TransferKey], key: TransferKey
) -> tuple[int, int]:
    """When the lanes of `key` would be free if it came after `earlier`."""
    if contention == "parallel":
        return 0, 0
    shared = [
        other
        for other in earlier
        if key[1] == other[1] or key[2] == other[2] or (contention == "sequential" and {*key[1:]} & {*other[1:]})
    ]
    return max((played.end[other] for other in shared), default=(0, 0))


def test_a_chain_over_two_devices_by_hand(reference: ModuleType) -> None:
    """a (1 s) on one, its tensor of 10 B takes 2 s, b (3 s) on the other and again 2 s back, c (1 s)."""
    graph = Graph(
        (
            Op("a", "op", outputs=(Tensor("x", 10, seconds=2.0),), seconds=1.0, persistent_bytes=5),
            Op("b", "op", ("x",), (Tensor("y", 4, seconds=2.0),), seconds=3.0, temp_bytes=7),
            Op("c", "op", ("y",), seconds=1.0),
        )
    )
    cluster = make_cluster(2, "duplex")
    device = {"a": "d0", "b": "d1", "c": "d0"}
    order = {"d0": ("a", "c"), "d1": ("b",)}
    plan = reference.as_plan(graph, cluster, device, order, (("x", "d0", "d1"), ("y", "d1", "d0")))
    timeline = simulate(Problem(graph, cluster), plan)
    assert timeline.memory == {
        "d0": ((0.0, 5), (0.0, 15), (3.0, 5), (6.0, 9), (9.0, 5)),
        "d1": ((0.0, 0), (1.0, 10), (3.0, 21), (6.0, 4), (8.0, 0)),
    }
    assert timeline.step_seconds == 9.0
    assert timeline.busy_seconds == {"d0": 2.0, "d1": 3.0}


def test_one_tensor_is_sent_once_to_a_device_that_reads_it_twice(reference: ModuleType) -> None:
    graph = Graph(
        (
            Op("a", "op", outputs=(Tensor("x", 8, seconds=1.0),), seconds=0.0),
            Op("b", "op", ("x",), seconds=1.0),
            Op("c", "op", ("x",), seconds=1.0),
        )
    )
    cluster = make_cluster(2, "sequential")
    plan = reference.as_plan(
        graph, cluster, {"a": "d0", "b": "d1", "c": "d1"}, {"d0": ("a",), "d1": ("b", "c")}, (("x", "d0", "d1"),)
    )
    timeline = simulate(Problem(graph, cluster), plan)
    assert len(timeline.transfers) == 1
    assert timeline.step_seconds == 3.0
    assert timeline.peak_bytes == {"d0": 8, "d1": 8}


def test_orders_that_wait_for_each_other_are_an_error(reference: ModuleType) -> None:
    graph = Graph(
        (
            Op("a", "op", outputs=(Tensor("x"),), seconds=1.0),
            Op("b", "op", ("x",), seconds=1.0),
        )
    )
    plan = reference.as_plan(graph, make_cluster(1, "duplex"), {"a": "d0", "b": "d0"}, {"d0": ("b", "a")}, ())
    with pytest.raises(BaechiError) as caught:
        simulate(Problem(graph, plan.cluster), plan)
    assert caught.value.code == "B403"


@pytest.mark.parametrize("transfers", [(), (("x", "d0", "d1"), ("x", "d1", "d0"))])
def test_transfers_too_few_or_too_many_are_an_error(reference: ModuleType, transfers: tuple[TransferKey, ...]) -> None:
    graph = Graph((Op("a", "op", outputs=(Tensor("x"),), seconds=1.0), Op("b", "op", ("x",), seconds=1.0)))
    cluster = make_cluster(2, "duplex")
    plan = reference.as_plan(graph, cluster, {"a": "d0", "b": "d1"}, {"d0": ("a",), "d1": ("b",)}, transfers)
    with pytest.raises(BaechiError) as caught:
        simulate(Problem(graph, cluster), plan)
    assert caught.value.code == "B403"


def test_a_plan_for_another_graph_is_an_error(reference: ModuleType) -> None:
    graph = Graph((Op("a", "op", seconds=1.0),))
    plan = reference.as_plan(graph, make_cluster(1, "duplex"), {"z": "d0"}, {"d0": ("z",)}, ())
    with pytest.raises(BaechiError) as caught:
        simulate(Problem(graph, plan.cluster), plan)
    assert caught.value.code == "B402"
