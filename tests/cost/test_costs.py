"""The cost model in closed form, and the flat arrays against the graph that they come from."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baechi.cost import CostTable, Problem, op_seconds
from baechi.cost.compute import roofline_seconds
from baechi.cost.problem import LINK, TOKEN, UNLIMITED_CORES
from baechi.errors import BaechiError
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.models.graphs import random_dag

GPU = Device(
    "gpu",
    1 << 30,
    type="gpu",
    flops_per_second={"float32": 1e12, "float16": 4e12},
    bytes_per_second=1e11,
    launch_seconds=5e-6,
    efficiency=0.5,
)


@pytest.mark.parametrize(
    ("flops", "moved", "arithmetic", "seconds"),
    [
        (1e9, 0, "float32", 5e-6 + 2e-3),  # 1e9 / (0.5 x 1e12)
        (1e9, 0, "float16", 5e-6 + 5e-4),
        (1e9, 0, "float64", 5e-6 + 2e-3),  # not named: float32's rate
        (1e6, 10**9, "float32", 5e-6 + 1e-2),  # bound by memory
        (0, 10**6, "float32", 5e-6 + 1e-5),
        (0, 0, "float32", 0.0),  # a view is free
    ],
)
def test_roofline(flops: float, moved: int, arithmetic: str, seconds: float) -> None:
    op = Op("a", "mm", flops=flops, moved_bytes=moved, arithmetic=arithmetic)
    assert roofline_seconds(op, GPU) == pytest.approx(seconds, rel=1e-12)
    assert op_seconds(op, GPU) == roofline_seconds(op, GPU)


@given(st.floats(1, 1e15), st.integers(1, 10**12), st.floats(1e6, 1e15), st.floats(1e6, 1e13))
def test_roofline_is_the_larger_of_two_times(flops: float, moved: int, rate: float, bandwidth: float) -> None:
    device = Device("d", 1, flops_per_second={"float32": rate}, bytes_per_second=bandwidth)
    found = roofline_seconds(Op("a", "mm", flops=flops, moved_bytes=moved), device)
    assert found == pytest.approx(max(flops / rate, moved / bandwidth))


def test_what_is_declared_comes_before_what_is_measured_before_the_roofline() -> None:
    table = CostTable({"gpu": {"mm": 7e-3}})
    op = Op("a", "mm", flops=1e9, key="mm")
    declared = Op("a", "mm", flops=1e9, key="mm", seconds=3e-3)
    assert op_seconds(declared, GPU, table) == 3e-3
    assert op_seconds(op, GPU, table) == 7e-3
    assert op_seconds(op, Device("c", 1, type="cpu", flops_per_second={"float32": 1e9}), table) == 1.0
    assert op_seconds(Op("a", "mm", flops=1e9, key="other"), GPU, table) == pytest.approx(2.005e-3)
    assert op_seconds(declared, Device("d", 1, speed=2.0), table) == 1.5e-3


def test_a_table_gains_times_and_keeps_the_others() -> None:
    old = CostTable({"cpu": {"a": 1.0, "b": 2.0}, "gpu": {"a": 3.0}})
    new = old.updated("cpu", {"b": 4.0, "c": 5.0})
    assert new.seconds == {"cpu": {"a": 1.0, "b": 4.0, "c": 5.0}, "gpu": {"a": 3.0}}
    assert old.seconds["cpu"] == {"a": 1.0, "b": 2.0}


def two(**options: object) -> Cluster:
    return Cluster((Device("d0", 100), Device("d1", 200, speed=2.0)), Link(1e-6, 1e9), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(10))
def test_arrays_say_what_the_graph_says(seed: int) -> None:
    graph = random_dag(seed, 40, groups=True, shuffled=True)
    half = (replace(op, outputs=tuple(replace(t, scattered=True) for t in op.outputs)) for op in graph.ops[::2])
    graph = graph.with_ops((*half, *graph.ops[1::2]))
    problem = Problem(graph, two())
    a, names, ops = problem.arrays, problem.tensor_names, graph.ops
    assert [names[t] for t in range(len(names)) if a.t_ticks[t] != TOKEN] == [t.name for op in ops for t in op.outputs]
    for i, op in enumerate(ops):
        made = range(a.out_ptr[i], a.out_ptr[i + 1])
        assert [names[t] for t in made if names[t]] == [t.name for t in op.outputs]
        assert all(a.t_op[t] == i for t in made)
        read = a.in_t[a.in_ptr[i] : a.in_ptr[i + 1]].tolist()
        assert [names[t] for t in read if names[t]] == list(op.inputs)
        assert [ops[a.t_op[t]].name for t in read if not names[t]] == list(op.after)
        assert (a.temp[i], a.persistent[i]) == (op.temp_bytes, op.persistent_bytes)
        assert a.ticks[i].tolist() == [round((op.seconds or 0) * 1e12), round((op.seconds or 0) * 1e12 / 2)]
    for t in range(len(names)):
        readers = [ops[i].name for i in a.rd_op[a.rd_ptr[t] : a.rd_ptr[t + 1]]]
        if names[t]:
            tensor = graph.tensor[names[t]]
            assert readers == [op.name for op in graph.readers[names[t]]]
            assert (a.t_bytes[t], bool(a.t_keep[t])) == (tensor.nbytes, tensor.keep)
            assert a.t_packed[t] == (tensor.nbytes if tensor.scattered else 0)
            assert a.t_ticks[t] == (LINK if tensor.seconds is None else round(tensor.seconds * 1e12))
    assert [ops[i].name for i in a.order] == [ops[i].name for i in graph.order]
    for group in graph.groups.values():
        assert len({a.group[ops.index(op)] for op in group}) == 1
    assert len(a.group_ptr) - 1 == len(graph.groups)
    assert a.cap.tolist() == [100, 200]


def test_views_take_no_memory_and_point_at_the_input_that_they_are_a_view_of() -> None:
    graph = Graph(
        (
            Op("p", "parameter", outputs=(Tensor("w", 8, held=8),), persistent_bytes=8),
            Op("x", "op", outputs=(Tensor("x", 8, held=3),), persistent_bytes=3),
            Op("v", "view", ("w",), (Tensor("v", 8, alias_of="w"),)),
            Op("u", "view", ("x", "v"), (Tensor("u", 4, alias_of="w"), Tensor("n", 4))),
        )
    )
    problem = Problem(graph, two())
    a, at = problem.arrays, {name: t for t, name in enumerate(problem.tensor_names)}
    assert {name: int(a.t_size[t]) for name, t in at.items()} == {"w": 0, "x": 5, "v": 0, "u": 0, "n": 4}
    assert {name: int(a.t_base[t]) for name, t in at.items()} == {"w": -1, "x": -1, "v": at["w"], "u": at["v"], "n": -1}
    assert a.t_bytes.tolist() == [8, 8, 8, 4, 4]


def test_hosts_cores_and_links() -> None:
    devices = (Device("a", 1, host="h"), Device("b", 1, host="g"), Device("c", 1, host="h"))
    cluster = Cluster(devices, Link(2e-6, 1e9), {("a", "b"): Link(3e-6, 2e9)}, "duplex", {"h": 2})
    a = Problem(Graph((Op("x", "op", seconds=1.0),)), cluster).arrays
    assert a.host.tolist() == [0, 1, 0]
    assert a.cores.tolist() == [2, UNLIMITED_CORES]
    assert a.latency[0, 1] == 3_000_000
    assert a.latency[1, 0] == 2_000_000
    assert a.ticks_per_byte[0, 1] == 500.0


def test_other_caps_and_groups_share_the_rest() -> None:
    problem = Problem(random_dag(1, 20), two())
    other = problem.with_caps(np.array([1, 2]))
    assert other.arrays.cap.tolist() == [1, 2]
    assert other.arrays.ticks is problem.arrays.ticks
    assert problem.arrays.cap.tolist() == [100, 200]
    labels = np.arange(20) // 5 * 7
    grouped = problem.with_groups(labels).arrays
    assert grouped.group.tolist() == (np.arange(20) // 5).tolist()
    assert grouped.group_op[grouped.group_ptr[1] : grouped.group_ptr[2]].tolist() == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0, 1e7])
def test_measured_times_that_are_no_times(seconds: float) -> None:
    graph = Graph((Op("a", "mm", key="mm"),))
    with pytest.raises(BaechiError) as caught:
        _ = Problem(graph, Cluster((Device("d", 1, type="cpu"),)), CostTable({"cpu": {"mm": seconds}})).arrays
    assert caught.value.code == "B302"


def test_a_step_that_is_too_long_to_add_up() -> None:
    ops = tuple(Op(f"op{k}", "op", seconds=1e6) for k in range(5))
    with pytest.raises(BaechiError) as caught:
        _ = Problem(Graph(ops), Cluster((Device("d", 1),))).arrays
    assert caught.value.code == "B302"


@pytest.mark.parametrize(
    "graph",
    [
        Graph((Op("a", "op", seconds=1.0, outputs=(Tensor("x", seconds=1e10),)),), "declared transfer"),
        Graph((Op("a", "op", seconds=1.0, outputs=(Tensor("x", nbytes=10**20),)),), "tensor size"),
        Graph((Op("a", "op", seconds=1.0, temp_bytes=10**20),), "temporary bytes"),
        Graph((Op("a", "op", seconds=1.0, persistent_bytes=10**20),), "persistent bytes"),
        Graph(tuple(Op(f"op{k}", "op", seconds=1.0, persistent_bytes=6 * 10**18) for k in range(3)), "sum of bytes"),
    ],
    ids=lambda graph: graph.name,
)
def test_numbers_that_no_array_can_hold(graph: Graph) -> None:
    with pytest.raises(BaechiError) as caught:
        _ = Problem(graph, two()).arrays
    assert caught.value.code.startswith("B")


@pytest.mark.parametrize(
    "device",
    [
        Device("d", 1, speed=0.0),
        Device("d", 1, speed=-1.0),
        Device("d", 1, speed=math.nan),
        Device("d", 10**20),
    ],
    ids=["no speed", "negative speed", "speed is no number", "memory"],
)
def test_devices_that_cannot_be(device: Device) -> None:
    with pytest.raises(BaechiError):
        _ = Problem(Graph((Op("a", "op", seconds=1.0),)), Cluster((device,))).arrays


@pytest.mark.parametrize(
    "device", [{"efficiency": 0.0}, {"bytes_per_second": 0.0}, {"flops_per_second": {"float32": 0.0}}]
)
def test_devices_without_a_rate(device: dict[str, float]) -> None:
    graph = Graph((Op("a", "op", flops=1.0, moved_bytes=1),))
    rates: dict[str, object] = {"flops_per_second": {"float32": 1.0}, **device}
    with pytest.raises(BaechiError):
        _ = Problem(graph, Cluster((Device("d", 1, **rates),))).arrays  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "link", [Link(math.nan), Link(-1.0), Link(0.0, 0.0), Link(0.0, math.nan), Link(0.0, -1.0)], ids=str
)
def test_links_that_cannot_be(link: Link) -> None:
    graph = Graph((Op("a", "op", outputs=(Tensor("x", 8),), seconds=1.0), Op("b", "op", ("x",), seconds=1.0)))
    with pytest.raises(BaechiError):
        _ = Problem(graph, Cluster((Device("d0", 100), Device("d1", 100)), link)).arrays
