"""Graphs from files: our own, dnn-partitioning workloads, those of ``gen_dag.py``, Standard Task Graphs.

A dnn-partitioning workload (Tarnawski et al., "Efficient Algorithms for Device Placement of DNN
Graph Operators", NeurIPS 2020) has times in milliseconds and sizes in bytes. A ``gen_dag.py`` file
has microseconds; a transfer takes ``round(0.0001754 * nbytes + 134)`` of them, one at a time.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from baechi.document import Entry, load_json, read_text
from baechi.errors import BaechiError
from baechi.frontends.stg import read_stg
from baechi.ir.cluster import UNLIMITED_BYTES, Cluster, Contention, Device
from baechi.ir.graph import Graph
from baechi.ir.json import GRAPH_SCHEMA, graph_from_entry
from baechi.ir.op import Op, Tensor

__all__ = ["Defaults", "read_expert", "read_gen_dag", "read_target", "with_expert"]

_GEN_DAG_DEVICES = 4


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a file says besides its graph.

    Attributes:
        cluster: the devices it is meant for; None for our own graphs.
    """

    cluster: Cluster | None = None


def read_target(path: str | Path, *, ignore_colocation: bool = False, cpus: int = 0) -> tuple[Graph, Defaults]:
    """Read a graph from a file, whose format is told by its content; a Standard Task Graph's by its name, ``*.stg``.

    In a dnn-partitioning workload, ``fpgaLatency`` becomes `Op.seconds` (``cpuLatency`` for a node
    that no accelerator supports: its device waits for the host), ``size`` is persistent, rounded
    up to whole bytes, ``colorClass`` is the colocation group and ``isBackwardNode`` the phase. All
    edges out of a node of one ``cost`` are one tensor, which takes that time on any link and no
    memory. Of two edges between the same nodes the dearer counts. A ``gen_dag.py`` op has one
    output, which holds what persists. With `cpus`, a workload's cluster has CPUs behind its accelerators: devices
    that work in host memory (`Device.in_host_memory`), unlimited here, on which ops take ``cpuLatency``.

    Args:
        path: a JSON file, or a ``.stg`` file as `read_stg` reads it.
        ignore_colocation: leave out the colocation groups.
        cpus: how many of a workload's ``maxCPUs`` CPUs are devices.

    Returns:
        The graph and what else the file says.

    Raises:
        BaechiError: B102 when the file cannot be read or has not so many CPUs, B103 when it is no JSON, B104 when
            its format is unknown, B105 when an entry is missing or malformed, B2xx as `Graph`.
    """
    graph, cluster = _read_file(path, cpus)
    described = {"file": str(path), "ignore_colocation": ignore_colocation} | ({"cpus": cpus} if cpus else {})
    graph = replace(graph, meta={**graph.meta, "target": described})
    if ignore_colocation:
        graph = graph.with_ops(replace(op, group=None) for op in graph.ops)
    return graph, Defaults(cluster)


def _read_file(path: str | Path, cpus: int) -> tuple[Graph, Cluster | None]:
    if Path(path).suffix == ".stg":
        _check_cpus(cpus, None)
        return read_stg(read_text(path, "B110"), Path(path).stem, str(path))
    return _read(load_json(path, "B105", missing="B110", malformed="B103"), Path(path).stem, cpus)


def _check_cpus(asked: int, there: Entry | None) -> None:
    most = there.integer() if there and asked else 0
    if not 0 <= asked <= most:
        raise BaechiError(
            "B102", f"the file has {most} CPUs, not {asked}", help="cpus is at most the 'maxCPUs' of a workload"
        )


def _read(root: Entry, name: str, cpus: int) -> tuple[Graph, Cluster | None]:
    data = root.value if isinstance(root.value, dict) else {}
    _check_cpus(cpus, root.find("maxCPUs") if data else None)
    if data.get("schema") == GRAPH_SCHEMA:
        return graph_from_entry(root), None
    if "schema" not in data and "nodes" in data and "edges" in data:
        nodes = data["nodes"]
        first = nodes[0] if isinstance(nodes, list) and nodes and isinstance(nodes[0], dict) else {}
        if "maxFPGAs" in data or "fpgaLatency" in first:
            return _read_dnn(root, name, cpus)
        if "compute_us" in first:
            return read_gen_dag(root, name)
    raise root.error(
        f"this is a '{data['schema']}'" if "schema" in data else "the format is unknown",
        code="B104",
        help=f'a target is a "{GRAPH_SCHEMA}", a dnn-partitioning workload (maxFPGAs, nodes, edges) or a gen_dag.py graph',
    )


def _read_dnn(root: Entry, name: str, cpus: int) -> tuple[Graph, Cluster]:
    nodes = _nodes(root.at("nodes"))
    costs: dict[str, dict[str, float]] = {node: {} for node in nodes}  # milliseconds by reader, by node
    for edge in root.at("edges").items():
        source, to = (_node(edge.at(end), nodes) for end in ("sourceId", "destId"))
        costs[source][to] = max(edge.at("cost").number(), costs[source].get(to, 0.0))
    inputs: dict[str, list[str]] = {node: [] for node in nodes}
    outputs: dict[str, list[Tensor]] = {node: [] for node in nodes}
    for node, readers in costs.items():
        for i, cost in enumerate(dict.fromkeys(readers.values())):
            tensor = Tensor(node if i == 0 else f"{node}.{i}", seconds=cost / 1000)
            outputs[node].append(tensor)
            for to in (to for to, c in readers.items() if c == cost):
                inputs[to].append(tensor.name)
    ops = [_dnn_op(node, e, inputs[node], outputs[node]) for node, e in nodes.items()]
    if cpus:
        ops = [replace(op, host_seconds=nodes[op.name].at("cpuLatency").number() / 1000) for op in ops]
    count, memory = root.at("maxFPGAs"), root.at("maxSizePerFPGA")
    if count.integer() < 1:
        raise count.expected("at least one device")
    if memory.number() < 1:
        raise memory.expected("a memory size in bytes")
    cluster = _cluster("acc", count.integer(), math.floor(memory.number()), "parallel")
    hosts = tuple(Device(f"cpu:{k}", UNLIMITED_BYTES, in_host_memory=True) for k in range(cpus))
    return Graph(_twins(ops), name), replace(cluster, devices=cluster.devices + hosts)


def _dnn_op(node: str, entry: Entry, inputs: Sequence[str], outputs: Sequence[Tensor]) -> Op:
    supported, size, colour = entry.find("supportedOnFpga"), entry.find("size"), entry.find("colorClass")
    backward, title = entry.find("isBackwardNode"), entry.find("name")
    latency = entry.at("fpgaLatency" if supported is None or supported.value else "cpuLatency")
    return Op(
        name=node,
        kind="node",
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        phase="backward" if backward and backward.value else "forward",
        persistent_bytes=math.ceil(size.number()) if size else 0,
        seconds=latency.number() / 1000,
        group=_id(colour) if colour else None,
        module=title.text() if title else "",
    )


def _twins(ops: Sequence[Op]) -> tuple[Op, ...]:
    """Tie a backward op to the forward op of its colour, where that is the only one."""
    forward: dict[str, list[str]] = {}
    for op in ops:
        if op.group is not None and op.phase == "forward":
            forward.setdefault(op.group, []).append(op.name)
    return tuple(
        replace(op, forward=forward[op.group][0])
        if op.phase == "backward" and op.group is not None and len(forward.get(op.group, ())) == 1
        else op
        for op in ops
    )


def read_gen_dag(root: Entry, name: str) -> tuple[Graph, Cluster]:
    """Read a ``gen_dag.py`` graph from a document, and the cluster that it is meant for."""
    nodes = _nodes(root.at("nodes"))
    inputs: dict[str, dict[str, None]] = {node: {} for node in nodes}
    for edge in root.at("edges").items():
        source, to = (_node(end, nodes) for end in edge.items(2))
        inputs[to][source] = None
    ops = tuple(_gen_dag_op(node, e, inputs[node]) for node, e in nodes.items())
    return Graph(ops, name), _cluster("dev", _GEN_DAG_DEVICES, UNLIMITED_BYTES, "sequential")


def _gen_dag_op(node: str, entry: Entry, inputs: Iterable[str]) -> Op:
    nbytes, persistent = entry.at("out").integer(), entry.at("persistent").integer()
    transfer = round(0.0001754 * nbytes + 134) / 1e6
    return Op(
        name=node,
        kind="op",
        inputs=tuple(inputs),
        outputs=(Tensor(node, nbytes, held=min(persistent, nbytes), seconds=transfer),),
        temp_bytes=entry.at("temp").integer(),
        persistent_bytes=persistent,
        seconds=entry.at("compute_us").number() / 1e6,
    )


def _nodes(entry: Entry) -> dict[str, Entry]:
    nodes: dict[str, Entry] = {}
    for e in entry.items():
        name = _id(e.at("id"))
        if name in nodes:
            raise e.at("id").error(f"two nodes have the id {name}")
        nodes[name] = e
    if not nodes:
        raise entry.expected("at least one node")
    return nodes


def _id(entry: Entry) -> str:
    if isinstance(entry.value, bool) or not isinstance(entry.value, int | str):
        raise entry.expected("a whole number or a string")
    return str(entry.value)


def _node(entry: Entry, nodes: Mapping[str, Entry]) -> str:
    if _id(entry) not in nodes:
        raise entry.error(f"no node has the id {entry.value}")
    return _id(entry)


def _cluster(prefix: str, count: int, memory: int, contention: Contention) -> Cluster:
    return Cluster(tuple(Device(f"{prefix}:{i}", memory) for i in range(count)), contention=contention)


def read_expert(path: str | Path) -> dict[str, int]:
    """Read an expert's split of a dnn-partitioning workload: device index by node id.

    Raises:
        BaechiError: B102 when the file cannot be read, B103 when it is no JSON, B105 when an entry
            is missing or malformed, a node is on two devices, or on a CPU.
    """
    root = load_json(path, "B105", missing="B110", malformed="B103")
    split: dict[str, int] = {}
    for index, device in enumerate(root.at("fpgas").items()):
        for node in device.at("nodes").items():
            if split.setdefault(_id(node), index) != index:
                raise node.error(f"node {node.value} is on two devices")
    cpus = root.find("cpus")
    for cpu in cpus.items() if cpus else []:
        for node in cpu.at("nodes").items():
            raise node.error(f"node {node.value} is on a CPU", help="give every node to one of the fpgas")
    return split


def with_expert(graph: Graph, expert: Mapping[str, int]) -> Graph:
    """The graph with `Op.expert` set; what the expert does not name follows its twin or its group.

    Args:
        graph: the graph.
        expert: device index by op name.

    Raises:
        BaechiError: B106 when the expert names what is no op of the graph.
    """
    for name in expert:
        if name not in graph.op:
            raise BaechiError("B106", f"the expert's split names '{name}', which is no op of '{graph.name}'")
    groups = {graph.op[name].group: index for name, index in expert.items() if graph.op[name].group is not None}

    def index(op: Op) -> int | None:
        return expert.get(op.name, expert.get(op.forward or "", groups.get(op.group)))

    return graph.with_ops(replace(op, expert=index(op)) for op in graph.ops)
