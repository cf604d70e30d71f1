"""Estimate the memory and the time of a step on one device, before anything is placed."""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from baechi.cli.arguments import add_target_arguments
from baechi.cli.output import emit, emit_json
from baechi.cli.subject import extract, load_subject, measured_table

if TYPE_CHECKING:
    from baechi.cost import CostTable
    from baechi.ir.cluster import Device
    from baechi.ir.graph import Graph
    from baechi.report.explain_text import Estimate
    from baechi.target import Target

__all__ = ["configure", "execute"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_target_arguments(parser)


def execute(args: argparse.Namespace) -> int:
    """Estimate for the devices of the cluster, or for all that have a name."""
    from baechi.report.explain_text import estimate_text

    if args.cluster or args.measure or args.memory or args.devices:
        subject = load_subject(args)
        target, graph, table = subject.target, subject.graph, subject.table
        kinds = {(d.type, d.cap): (d.name, d) for d in reversed(subject.cluster.devices)}
        devices = list(reversed(kinds.values()))
    else:
        target, _ = extract(args)
        graph, table = target.graph, measured_table(args.table)
        devices = list(_known(target))
    estimate = _estimate(graph, table, devices)
    if args.json:
        emit_json(_to_dict(target, graph, estimate))
        return 0
    batch = target.description.get("batch")
    emit(estimate_text(graph.name + (f", batch {batch}" if batch else ""), estimate))
    return 0


def _known(target: "Target") -> "Iterator[tuple[str, Device]]":
    """The file's own device, or every preset."""
    from baechi.config import parse_cluster, presets

    own = target.defaults.cluster
    if own is not None:
        yield own.devices[0].name, own.devices[0]
        return
    for name, preset in presets().items():
        yield preset.title, parse_cluster(name).devices[0]


def _estimate(graph: "Graph", table: "CostTable | None", devices: "list[tuple[str, Device]]") -> "Estimate":
    from baechi.api import place_graph, timeline_of
    from baechi.cost import op_seconds
    from baechi.ir.cluster import UNLIMITED_BYTES, Cluster
    from baechi.ir.op import PHASES
    from baechi.report.explain_text import DeviceEstimate, Estimate
    from baechi.report.explanation import Categories, Share
    from baechi.report.facts import parameter_count
    from baechi.sim.holders import peak_of

    alone = replace(devices[0][1], memory_bytes=UNLIMITED_BYTES, memory_fraction=None)
    plan = place_graph(graph, Cluster((alone,)), "single", table=table)
    peak = peak_of(graph, plan, timeline_of(graph, plan, table), alone.name)
    flops = dict.fromkeys(PHASES, 0.0)
    for op in graph.ops:
        flops[op.phase] += op.flops
    return Estimate(
        parameter_count(graph),
        tuple(Share(phase, count) for phase, count in flops.items()),
        peak.nbytes,
        Categories(graph).sums(peak),
        tuple(
            DeviceEstimate(
                device.type,
                title,
                device.memory_bytes,
                device.memory_bytes is None or peak.nbytes <= device.memory_bytes,
                sum(op_seconds(op, device, table) for op in graph.ops),
            )
            for title, device in devices
        ),
    )


def _to_dict(target: "Target", graph: "Graph", estimate: "Estimate") -> dict[str, Any]:
    return {
        "schema": "baechi/estimate/1",
        "graph": {"digest": graph.digest, "target": dict(target.description)},
        "parameters": estimate.parameters,
        "flops": {s.name: s.amount for s in estimate.flops},
        "peak_bytes": estimate.peak_bytes,
        "memory": {s.name: int(s.amount) for s in estimate.memory},
        "devices": [
            {
                "name": d.name,
                "title": d.title,
                "memory_bytes": d.memory_bytes,
                "fits": d.fits,
                "step_seconds": d.step_seconds,
            }
            for d in estimate.devices
        ],
    }
