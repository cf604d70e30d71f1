"""Graphs, plans and timelines as JSON: the form that other tools read, and nothing is lost."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from baechi.document import Entry, Source, load_json
from baechi.files import write_atomic
from baechi.ir.bulk import uncollected
from baechi.ir.graph import Graph
from baechi.ir.plan import OBJECTIVES, PLAN_SCHEMA, Bounds, Objective, Placed, Plan, Prediction, TransferKey
from baechi.ir.records import cluster_from_entry, op_from_entry, op_to_dict
from baechi.ir.timeline import OpSpan, Timeline, TransferSpan

__all__ = [
    "GRAPH_SCHEMA",
    "TIMELINE_SCHEMA",
    "dump_graph",
    "graph_from_dict",
    "graph_from_entry",
    "graph_to_dict",
    "plan_from_dict",
    "plan_from_entry",
    "plan_to_dict",
    "read_graph",
    "read_plan",
    "timeline_from_dict",
    "timeline_from_entry",
    "timeline_to_dict",
    "write_graph",
    "write_plan",
]

GRAPH_SCHEMA = "baechi/graph/1"
TIMELINE_SCHEMA = "baechi/timeline/1"


def graph_to_dict(graph: Graph) -> dict[str, Any]:
    """A graph as plain data; `Graph.meta` must be plain data already."""
    ops = [op_to_dict(op) for op in graph.ops]
    return {"schema": GRAPH_SCHEMA, "name": graph.name, "meta": dict(graph.meta), "ops": ops}


def graph_from_dict(data: Any, *, name: str = "graph") -> Graph:
    """Read a graph back from `graph_to_dict`.

    Args:
        data: the plain data.
        name: what errors call it.

    Raises:
        BaechiError: B210 on another schema, B211 on a missing or malformed entry, B201 to B207 as `Graph`.
    """
    return graph_from_entry(Entry(data, Source(name, "B211")))


def graph_from_entry(entry: Entry) -> Graph:
    """Read a graph from a document; errors as `graph_from_dict`, with the document's code."""
    _expect_schema(entry, GRAPH_SCHEMA, "B210")
    entry.only(("schema", "name", "meta", "ops"))
    meta = entry.find("meta")
    with uncollected():
        ops = tuple(op_from_entry(e) for e in entry.at("ops").items())
        return Graph(ops, entry.at("name").text(), meta.table() if meta else {})


def read_graph(path: str | Path) -> Graph:
    """Read a graph file.

    Raises:
        BaechiError: B208 when it cannot be read, B209 when it is no JSON, else as `graph_from_dict`.
    """
    return graph_from_entry(load_json(path, "B211", missing="B208", malformed="B209"))


def write_graph(graph: Graph, path: str | Path) -> None:
    """Write a graph file, whole or not at all.

    Raises:
        BaechiError: B404 when it cannot be written.
    """
    write_atomic(path, dump_graph(graph))


def dump_graph(graph: Graph) -> str:
    """A graph as the text of a graph file."""
    return _lines(graph_to_dict(graph))


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """A plan as plain data; `Plan.target` and the placer's options must be plain data already."""
    return {
        "schema": PLAN_SCHEMA,
        "graph": {"digest": plan.graph, "target": dict(plan.target)},
        "cluster": plan.cluster.to_dict(),
        "placer": {"name": plan.placer.name, "options": dict(plan.placer.options), "seconds": plan.placer.seconds},
        "device": dict(plan.device),
        "order": {device: list(ops) for device, ops in plan.order.items()},
        "transfers": [list(transfer) for transfer in plan.transfers],
        "predicted": {
            "step_seconds": plan.predicted.step_seconds,
            "peak_bytes": dict(plan.predicted.peak_bytes),
            "load_seconds": dict(plan.predicted.load_seconds),
        },
        "bounds": plan.bounds.to_dict(),
        "seed": plan.seed,
        "version": plan.version,
        "objective": plan.objective,
    }


def plan_from_dict(data: Any, *, name: str = "plan") -> Plan:
    """Read a plan back from `plan_to_dict`.

    Args:
        data: the plain data.
        name: what errors call it.

    Raises:
        BaechiError: B403 on another schema, B405 on a missing or malformed entry, an unknown
            device, or an op that is ordered twice, never, or on two devices.
    """
    return plan_from_entry(Entry(data, Source(name, "B405")))


def read_plan(path: str | Path) -> Plan:
    """Read a plan file.

    Raises:
        BaechiError: B401 when it cannot be read, B402 when it is no JSON, else as `plan_from_dict`.
    """
    return plan_from_entry(load_json(path, "B405", missing="B401", malformed="B402"))


def write_plan(plan: Plan, path: str | Path) -> None:
    """Write a plan file, whole or not at all.

    Raises:
        BaechiError: B404 when it cannot be written.
    """
    write_atomic(path, _lines(plan_to_dict(plan)))


def plan_from_entry(entry: Entry) -> Plan:
    """Read a plan from a document; errors as `plan_from_dict`, with the document's code."""
    _expect_schema(entry, PLAN_SCHEMA, "B403")
    cluster = cluster_from_entry(entry.at("cluster"))
    for device in cluster.devices:
        if device.memory_bytes is None:
            raise entry.at("cluster").error(f"device '{device.name}' has no memory_bytes")
    source, placer, predicted = entry.at("graph"), entry.at("placer"), entry.at("predicted")
    order = {d: tuple(op.text() for op in ops.items()) for d, ops in entry.at("order").entries()}
    loads, objective = predicted.find("load_seconds"), entry.find("objective")
    plan = Plan(
        graph=source.at("digest").text(),
        target=source.at("target").table(),
        cluster=cluster,
        placer=Placed(placer.at("name").text(), placer.at("options").table(), placer.at("seconds").number()),
        device={op: d.text() for op, d in entry.at("device").entries()},
        order=order,
        transfers=tuple(_transfer(t) for t in entry.at("transfers").items()),
        predicted=Prediction(
            predicted.at("step_seconds").number(),
            {d: peak.integer() for d, peak in predicted.at("peak_bytes").entries()},
            {d: load.number() for d, load in loads.entries()} if loads else {},
        ),
        bounds=_bounds(entry.at("bounds")),
        seed=entry.at("seed").integer(),
        version=entry.at("version").text(),
        objective=_objective(objective) if objective else "latency",
    )
    _check_devices(entry, plan)
    _check_order(entry, plan)
    return plan


def _objective(entry: Entry) -> Objective:
    if entry.value not in OBJECTIVES:
        raise entry.expected("one of: " + ", ".join(OBJECTIVES))
    return OBJECTIVES[OBJECTIVES.index(entry.value)]


def _bounds(entry: Entry) -> Bounds:
    return Bounds({name: e.number() for name, e in entry.entries() if name != "step_seconds"})


def _transfer(entry: Entry) -> TransferKey:
    tensor, source, destination = (part.text() for part in entry.items(3))
    return tensor, source, destination


def _check_devices(entry: Entry, plan: Plan) -> None:
    named = [e for _, e in entry.at("device").entries()]
    named += [end for transfer in entry.at("transfers").items() for end in transfer.items()[1:]]
    named += [e._replace(value=device) for device, e in entry.at("order").entries()]
    named += [e._replace(value=device) for device, e in entry.at("predicted").at("peak_bytes").entries()]
    for e in named:
        if e.value not in plan.cluster.device:
            raise e.error(f"'{e.value}' is no device of the cluster", help="devices: " + ", ".join(plan.cluster.device))


def _check_order(entry: Entry, plan: Plan) -> None:
    seen = Counter[str]()
    for device, ops in entry.at("order").entries():
        for e in ops.items():
            seen[e.value] += 1
            if seen[e.value] > 1:
                raise e.error(f"op '{e.value}' is ordered twice")
            if plan.device.get(e.value) != device:
                raise e.error(f"op '{e.value}' is on {plan.device.get(e.value, 'no device')}, not on {device}")
    for op, e in entry.at("device").entries():
        if op not in seen:
            raise e.error(f"op '{op}' is in no order")


def timeline_to_dict(timeline: Timeline) -> dict[str, Any]:
    """A timeline as plain data: spans and memory points as arrays of their fields."""
    return {
        "schema": TIMELINE_SCHEMA,
        "ops": [[s.op, s.device, s.start, s.end] for s in timeline.ops],
        "transfers": [[s.tensor, s.source, s.destination, s.start, s.end, s.nbytes] for s in timeline.transfers],
        "memory": {device: [list(point) for point in curve] for device, curve in timeline.memory.items()},
    }


def timeline_from_dict(data: Any, *, name: str = "timeline") -> Timeline:
    """Read a timeline back from `timeline_to_dict`; errors as `plan_from_dict`."""
    return timeline_from_entry(Entry(data, Source(name, "B405")))


def timeline_from_entry(entry: Entry) -> Timeline:
    """Read a timeline from a document; errors as `timeline_from_dict`, with the document's code."""
    _expect_schema(entry, TIMELINE_SCHEMA, "B403")
    return Timeline(
        tuple(_op_span(e) for e in entry.at("ops").items()),
        tuple(_transfer_span(e) for e in entry.at("transfers").items()),
        {device: tuple(_point(p) for p in curve.items()) for device, curve in entry.at("memory").entries()},
    )


def _op_span(entry: Entry) -> OpSpan:
    op, device, start, end = entry.items(4)
    return OpSpan(op.text(), device.text(), start.number(), end.number())


def _transfer_span(entry: Entry) -> TransferSpan:
    tensor, source, destination, start, end, nbytes = entry.items(6)
    names = tensor.text(), source.text(), destination.text()
    return TransferSpan(*names, start.number(), end.number(), nbytes.integer())


def _point(entry: Entry) -> tuple[float, int]:
    seconds, nbytes = entry.items(2)
    return seconds.number(), nbytes.integer()


def _expect_schema(entry: Entry, schema: str, code: str) -> None:
    found = entry.table().get("schema")
    if found != schema:
        raise entry.error(f'the schema is {json.dumps(found)}, not "{schema}"', code=code)


def _lines(data: Mapping[str, Any]) -> str:
    """JSON with one line for each element of each entry, so that a diff of two files can be read."""
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {_block(value)}" for key, value in data.items()) + "\n}\n"


def _block(value: Any) -> str:
    if isinstance(value, dict) and value:
        return "{\n  " + ",\n  ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()) + "\n}"
    if isinstance(value, list) and value:
        return "[\n  " + ",\n  ".join(json.dumps(v) for v in value) + "\n]"
    return json.dumps(value)
