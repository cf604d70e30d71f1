"""Form clusters of unlike peers that each hold a model, cut it into stages for each, and say how fast they are."""

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from baechi.cli.arguments import add_graph_arguments, positive, whole
from baechi.cli.output import emit, emit_json, progress
from baechi.cli.subject import extract, measured_table
from baechi.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from baechi.replicas.ravnest.crews import Averaging, Crew
    from baechi.replicas.ravnest.formation import Formation
    from baechi.replicas.ravnest.nodes import Node

__all__ = ["configure", "execute"]

_NAME = 22


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_graph_arguments(parser)
    peers = parser.add_argument_group("the peers")
    help_ = "TOML with [[peer]] tables: name, memory, preset or rates, count, bandwidth, latency"
    peers.add_argument("--peers", metavar="FILE", required=True, help=help_)
    peers.add_argument("--clusters", type=positive, metavar="K", help="how many (default: as many as hold the model)")
    peers.add_argument("--placer", default="contiguous", metavar="NAME", help="who cuts it (default contiguous)")
    peers.add_argument("--seed", type=whole, default=0, metavar="N", help="of the searches")
    peers.add_argument("--table", metavar="FILE", help="measured op times")


def execute(args: argparse.Namespace) -> int:
    """Form, place and print."""
    from baechi.cli.arguments import check_placer
    from baechi.replicas.ravnest.crews import assemble, averaging, need_bytes
    from baechi.replicas.ravnest.nodes import read_nodes

    check_placer(args.placer, {})
    nodes = read_nodes(args.peers)
    target, _ = extract(args)
    table = measured_table(args.table)
    options: Any = {"placer": args.placer, "seed": args.seed, "table": table}
    with progress(f"cutting {target.name} for {len(nodes)} peers"):
        formation, crews = assemble(target.graph, nodes, args.clusters, **options)
    need, mean = need_bytes(target.graph, nodes, table), averaging(target.graph, crews, nodes)
    if args.json:
        emit_json(_to_dict(target.name, need, formation, crews, mean))
    else:
        emit(_text(target.name, need, nodes, formation, crews, mean))
    return 0


def _to_dict(
    name: str, need: int, formation: "Formation", crews: "tuple[Crew, ...]", mean: "Averaging"
) -> dict[str, Any]:
    return {
        "schema": "baechi/replicas-clusters/1",
        "target": name,
        "need_bytes": need,
        "penalty": formation.penalty,
        "microbatches_per_second": sum(crew.rate for crew in crews),
        "average": asdict(mean),
        "clusters": [
            {
                "microbatches_per_second": crew.rate,
                "under_way": crew.under_way,
                "stages": [asdict(share) for share in crew.stages],
                "idle": list(crew.idle),
            }
            for crew in crews
        ],
    }


def _text(
    name: str,
    need: int,
    nodes: "tuple[Node, ...]",
    formation: "Formation",
    crews: "tuple[Crew, ...]",
    mean: "Averaging",
) -> str:
    count = f"{len(crews)} cluster" + "s" * (len(crews) > 1)
    lines = [
        f"{name} needs {format_bytes(need)}: {len(nodes)} peers make {count}, penalty {formation.penalty:.3g}",
        f"together {sum(crew.rate for crew in crews):.3g} micro-batches a second when full",
    ]
    if len(crews) > 1:
        rings = f"{mean.rings} ring" + "s" * (mean.rings > 1)
        cost = f"{format_seconds(mean.seconds)}, {format_bytes(mean.sent_bytes)} from the busiest peer"
        lines.append(f"an average over them: {rings}, {cost}")
    for i, crew in enumerate(crews):
        head = f"{'stage on':{_NAME}}{'ops':>6}{'memory':>12}{'of':>12}{'old weights':>13}{'each takes':>13}"
        lines += ["", f"cluster {i + 1}: {crew.rate:.3g} micro-batches a second, {crew.under_way} at once", head]
        for s in crew.stages:
            sizes = (
                f"{format_bytes(s.peak_bytes):>12}{format_bytes(s.memory_bytes):>12}{format_bytes(s.stash_bytes):>13}"
            )
            short = s.peer if len(s.peer) < _NAME else s.peer[: _NAME - 2] + "…"
            lines.append(f"{short:{_NAME}}{s.ops:>6}{sizes}{format_seconds(s.seconds):>13}")
        if crew.idle:
            lines.append("no stage: " + ", ".join(crew.idle))
    return "\n".join(lines)
