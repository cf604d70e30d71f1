"""Graphs from files of other projects."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from baechi.cost import Problem
from baechi.errors import BaechiError
from baechi.frontends.workload import read_expert, read_target, with_expert
from baechi.ir.cluster import UNLIMITED_BYTES, Device
from baechi.ir.graph import Graph
from baechi.ir.json import write_graph
from baechi.ir.op import Op, Tensor


def node(name: int, latency: float, size: float, colour: int | None, **more: Any) -> dict[str, Any]:
    data = {"name": f"node{name}", "id": name, "supportedOnFpga": 1, "cpuLatency": 10 * latency}
    data |= {"fpgaLatency": latency, "isBackwardNode": 0, "size": size, **more}
    return data if colour is None else data | {"colorClass": colour}


def edge(source: int, to: int, cost: float) -> dict[str, Any]:
    return {"sourceId": source, "destId": to, "cost": cost, "size": 1.0}


DNN: dict[str, Any] = {
    "maxSizePerFPGA": 1000.5,
    "maxFPGAs": 3,
    "maxCPUs": 1,
    "nodes": [
        node(7, 1.5, 10.2, 1),
        node(8, 2.0, 0.0, 2),
        node(9, 0.25, 5.0, None, supportedOnFpga=False),
        node(17, 3.0, 10.2, 1, isBackwardNode=True),
    ],
    "edges": [edge(7, 8, 0.5), edge(7, 9, 0.5), edge(7, 17, 4.0), edge(8, 17, 2.0), edge(9, 17, 1.0), edge(8, 17, 3.0)],
}
DAG: dict[str, Any] = {
    "kind": "layered",
    "seed": 1,
    "nodes": [
        {"id": 0, "name": "op0", "compute_us": 148, "temp": 7, "persistent": 100, "out": 1_000_000},
        {"id": 1, "name": "op1", "compute_us": 2, "temp": 0, "persistent": 0, "out": 0},
    ],
    "edges": [[0, 1]],
}


def read(tmp_path: Path, data: Any, **options: Any) -> tuple[Graph, Any]:
    path = tmp_path / "work.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    graph, defaults = read_target(path, **options)
    return graph, defaults.cluster


def test_a_dnn_partitioning_workload(tmp_path: Path) -> None:
    graph, cluster = read(tmp_path, DNN)
    assert [op.name for op in graph.ops] == ["7", "8", "9", "17"]
    assert [op.seconds for op in graph.ops] == pytest.approx([0.0015, 0.002, 0.0025, 0.003])
    assert [op.persistent_bytes for op in graph.ops] == [11, 0, 5, 11]
    assert [op.group for op in graph.ops] == ["1", "2", None, "1"]
    assert [op.phase for op in graph.ops] == ["forward", "forward", "forward", "backward"]
    assert [op.forward for op in graph.ops] == [None, None, None, "7"]
    assert graph.name == "work"
    assert [(d.name, d.cap, d.type) for d in cluster.devices] == [(f"acc:{i}", 1000, "unit") for i in range(3)]
    assert cluster.contention == "parallel"


def test_a_workload_with_its_own_cpu(tmp_path: Path) -> None:
    graph, cluster = read(tmp_path, DNN, cpus=1)
    plain, accelerators = read(tmp_path, DNN)
    assert [op.host_seconds for op in graph.ops] == pytest.approx([0.015, 0.02, 0.0025, 0.03])
    assert [replace(op, host_seconds=None) for op in graph.ops] == list(plain.ops)
    assert cluster.devices == (*accelerators.devices, Device("cpu:0", UNLIMITED_BYTES, in_host_memory=True))
    a = Problem(graph, cluster).arrays
    assert a.ticks[:, 0].tolist() == [1_500_000_000, 2_000_000_000, 2_500_000_000, 3_000_000_000]
    assert a.ticks[:, 3].tolist() == [15_000_000_000, 20_000_000_000, 2_500_000_000, 30_000_000_000]


@pytest.mark.parametrize(("data", "cpus", "there"), [(DNN, 2, 1), (DNN, -1, 1), (DAG, 1, 0)])
def test_cpus_that_a_file_has_not(tmp_path: Path, data: Any, cpus: int, there: int) -> None:
    with pytest.raises(BaechiError, match=f"the file has {there} CPUs, not {cpus}") as caught:
        read(tmp_path, data, cpus=cpus)
    assert caught.value.code == "B102"


def test_a_cpu_that_takes_no_known_time(tmp_path: Path) -> None:
    nodes = [{"id": "a", "fpgaLatency": 1}]
    with pytest.raises(BaechiError, match="'cpuLatency' is missing"):
        read(tmp_path, {"maxSizePerFPGA": 8, "maxFPGAs": 1, "maxCPUs": 1, "nodes": nodes, "edges": []}, cpus=1)


def test_edges_of_one_cost_are_one_tensor(tmp_path: Path) -> None:
    graph, _ = read(tmp_path, DNN)
    flows = {(t, op.name): graph.tensor[t].seconds for op in graph.ops for t in op.inputs}
    assert flows == {
        ("7", "8"): 0.0005,
        ("7", "9"): 0.0005,
        ("7.1", "17"): 0.004,
        ("8", "17"): 0.003,  # the dearer of two edges
        ("9", "17"): 0.001,
    }
    assert sum(t.nbytes for t in graph.tensor.values()) == 0
    assert sorted(graph.nx.edges) == [("7", "17"), ("7", "8"), ("7", "9"), ("8", "17"), ("9", "17")]


def test_colocation_can_be_ignored(tmp_path: Path) -> None:
    graph, _ = read(tmp_path, DNN, ignore_colocation=True)
    assert {op.group for op in graph.ops} == {None}
    assert graph.meta["target"]["ignore_colocation"] is True


def test_what_may_be_left_out(tmp_path: Path) -> None:
    least = {"maxSizePerFPGA": 8, "maxFPGAs": 1, "nodes": [{"id": "a", "fpgaLatency": 1}], "edges": []}
    graph, cluster = read(tmp_path, least)
    assert graph.ops == (Op("a", "node", seconds=0.001),)
    assert len(cluster) == 1


def test_a_gen_dag_graph(tmp_path: Path) -> None:
    graph, cluster = read(tmp_path, DAG)
    first, second = graph.ops
    assert (first.seconds, first.temp_bytes, first.persistent_bytes) == (148e-6, 7, 100)
    # 0.0001754 us a byte and 134 us: 309.4 us, whole microseconds; the output holds what persists
    assert first.outputs == (Tensor("0", 1_000_000, held=100, seconds=309e-6),)
    assert second.outputs[0].seconds == 134e-6
    assert second.inputs == ("0",)
    assert cluster.contention == "sequential"
    assert [d.name for d in cluster.devices] == ["dev:0", "dev:1", "dev:2", "dev:3"]


def test_our_own_graph(tmp_path: Path) -> None:
    graph = Graph((Op("a", "input", outputs=(Tensor("x", 8),)), Op("b", "relu", inputs=("x",))), "mine")
    write_graph(graph, tmp_path / "mine.json")
    back, defaults = read_target(tmp_path / "mine.json")
    assert (back.digest, back.name, defaults.cluster) == (graph.digest, "mine", None)


@pytest.mark.parametrize(
    ("data", "code", "what"),
    [
        ({**DNN, "maxFPGAs": "3"}, "B105", "$.maxFPGAs: expected a whole number"),
        ({**DNN, "maxFPGAs": 0}, "B105", "$.maxFPGAs: expected at least one device"),
        ({k: v for k, v in DNN.items() if k != "maxSizePerFPGA"}, "B105", "$: 'maxSizePerFPGA' is missing"),
        ({**DNN, "maxSizePerFPGA": 0}, "B105", "$.maxSizePerFPGA: expected a memory size"),
        ({**DNN, "nodes": []}, "B105", "$.nodes: expected at least one node"),
        ({**DNN, "nodes": [{"id": 1}], "edges": []}, "B105", "$.nodes[0]: 'fpgaLatency' is missing"),
        ({**DNN, "nodes": DNN["nodes"] + [node(8, 1, 1, 1)]}, "B105", "$.nodes[4].id: two nodes have the id 8"),
        ({**DNN, "nodes": [node(7, -1.0, 1, 1)], "edges": []}, "B206", "op '7': seconds is -0.001"),
        ({**DNN, "edges": [edge(7, 99, 1.0)]}, "B105", "$.edges[0].destId: no node has the id 99"),
        ({**DNN, "edges": [{"sourceId": 7, "destId": 8}]}, "B105", "$.edges[0]: 'cost' is missing"),
        ({**DNN, "edges": [edge(7, 8, 1), edge(8, 7, 1)]}, "B207", "cycle"),
        ({**DNN, "edges": [edge(7, 7, 1)]}, "B207", "cycle"),
        ({**DNN, "edges": [edge(7, 8, float("nan"))]}, "B206", "$.edges[0].cost: nan is no number"),
        ({**DNN, "nodes": 5}, "B105", "$.nodes: expected an array"),
        ({**DAG, "edges": [[0, 5]]}, "B105", "$.edges[0][1]: no node has the id 5"),
        ({**DAG, "edges": [[0]]}, "B105", "$.edges[0]: expected 2 elements"),
        ({"schema": "baechi/plan/1"}, "B104", "this is a 'baechi/plan/1'"),
        ({"nodes": [], "edges": []}, "B104", "the format is unknown"),
        ([1, 2], "B104", "the format is unknown"),
        ({"schema": "baechi/graph/1", "name": "g"}, "B105", "$: 'ops' is missing"),
        ('{"nodes": [', "B103", "line 1, column 12"),
    ],
)
def test_a_wrong_file(tmp_path: Path, data: Any, code: str, what: str) -> None:
    with pytest.raises(BaechiError) as caught:
        read(tmp_path, data)
    assert caught.value.code == code
    assert what in caught.value.what


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BaechiError, match=r"none\.json: No such file") as caught:
        read_target(tmp_path / "none.json")
    assert caught.value.code == "B110"


def split(tmp_path: Path, fpgas: list[list[int]], cpus: list[list[int]]) -> Path:
    path = tmp_path / "expert.json"
    data = {"cpus": [{"load": 0.0, "nodes": n} for n in cpus], "fpgas": [{"load": -1, "nodes": n} for n in fpgas]}
    path.write_text(json.dumps(data | {"maxLoad": -1}, indent=4))
    return path


def test_an_expert_and_what_follows_from_it(tmp_path: Path) -> None:
    expert = read_expert(split(tmp_path, [[7], [], [8]], [[]]))
    assert expert == {"7": 0, "8": 2}
    for ignore in (False, True):
        graph, _ = read(tmp_path, DNN, ignore_colocation=ignore)
        # 17 is the backward op of 7; nothing is said of 9
        assert {op.name: op.expert for op in with_expert(graph, expert).ops} == {"7": 0, "8": 2, "9": None, "17": 0}


@pytest.mark.parametrize(
    ("fpgas", "cpus", "what"),
    [
        ([[1], [1]], [], "$.fpgas[1].nodes[0]: node 1 is on two devices"),
        ([[1]], [[2]], "$.cpus[0].nodes[0]: node 2 is on a CPU"),
    ],
)
def test_a_wrong_expert(tmp_path: Path, fpgas: list[list[int]], cpus: list[list[int]], what: str) -> None:
    with pytest.raises(BaechiError) as caught:
        read_expert(split(tmp_path, fpgas, cpus))
    assert caught.value.code == "B105"
    assert what in caught.value.what


def test_an_expert_for_another_graph(tmp_path: Path) -> None:
    graph, _ = read(tmp_path, DNN)
    with pytest.raises(BaechiError, match="'5', which is no op of 'work'") as caught:
        with_expert(graph, {"5": 0})
    assert caught.value.code == "B106"
