"""Write a training graph as text, DOT, JSON or GraphML; a plan's with its devices."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from baechi.cli.arguments import add_graph_arguments, positive
from baechi.cli.output import emit, say
from baechi.cli.saved import saved_graph
from baechi.cli.subject import extract

if TYPE_CHECKING:
    from baechi.ir.graph import Graph

__all__ = ["configure", "execute"]

_WIDTH = 28


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_graph_arguments(parser, ", or a plan that place -o wrote")
    parser.add_argument("--format", choices=("text", "dot", "json", "graphml"), default="text", help="(default text)")
    parser.add_argument("--depth", type=positive, metavar="N", help="a node for each module, paths cut after N names")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write it; standard output without")


def execute(args: argparse.Namespace) -> int:
    """Extract, draw and write."""
    from baechi.files import write_atomic
    from baechi.report.graphs import by_module, graph_dot, graph_graphml, graph_text, ops_of

    graph, device = _subject(args)
    kind = "json" if args.json else args.format
    if kind == "json":
        from baechi.ir.json import dump_graph

        text = dump_graph(graph)
    else:
        drawn = by_module(graph, args.depth, device) if args.depth else ops_of(graph, device)
        writers = {"dot": graph_dot, "graphml": graph_graphml}
        text = writers[kind](drawn) if kind in writers else graph_text(graph, drawn, _WIDTH)
    if args.output:
        write_atomic(args.output, text)
        say(f"wrote {args.output}")
    else:
        emit(text)
    return 0


def _subject(args: argparse.Namespace) -> "tuple[Graph, Mapping[str, str] | None]":
    """The graph, and the devices of a plan."""
    if not _is_plan(args.target):
        return extract(args)[0].graph, None
    from baechi.ir.json import read_plan

    plan = read_plan(args.target)
    return saved_graph(args.target, plan), plan.device


def _is_plan(path: str) -> bool:
    """Whether a file says that it is a plan; what is wrong with another one is told by who reads it."""
    if not Path(path).is_file():
        return False
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and str(found.get("schema", "")).startswith("baechi/plan/")
