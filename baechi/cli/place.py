"""Place a graph on devices, and say how good the plan is."""

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from baechi.cli.arguments import (
    add_lighter_arguments,
    add_placer_arguments,
    add_target_arguments,
    placer_options,
)
from baechi.cli.kept import keep_graph
from baechi.cli.output import SearchLine, emit, emit_json, say
from baechi.cli.subject import Subject, load_subject, restart_tuned
from baechi.cli.trial import Made, best_tried

if TYPE_CHECKING:
    from baechi.ir.graph import Graph
    from baechi.ir.plan import Plan

__all__ = ["configure", "execute", "placed"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_target_arguments(parser)
    add_placer_arguments(parser)
    add_lighter_arguments(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="write the plan, for run and explain")


def execute(args: argparse.Namespace) -> int:
    """Place, and print a summary or the plan."""
    options = placer_options(args)
    if args.measure:
        restart_tuned(args)
    from baechi.api import sensitivity_of, timeline_of
    from baechi.ir.json import plan_to_dict, write_plan
    from baechi.report.facts import one_device
    from baechi.report.text import plan_text

    subject = load_subject(args)
    made = _made(args, subject, options)
    if args.measure:
        made = best_tried(made, partial(_made, args, options=options), seed=args.seed, table_file=args.table)
    subject, graph, plan = made
    if args.output:
        write_plan(plan, args.output)
        keep_graph(subject.target, graph)
        say(f"wrote {args.output}")
    errs = sensitivity_of(graph, plan, args.perturb, subject.table) if args.perturb else None
    if args.json:
        emit_json(plan_to_dict(plan) | ({"sensitivity": asdict(errs)} if errs is not None else {}))
        return 0
    timeline = timeline_of(graph, plan, subject.table)
    alone = one_device(subject.graph, subject.cluster, subject.table)
    emit(plan_text(graph, plan, timeline, alone, seconds=subject.seconds, errs=errs))
    return 0


def _made(args: argparse.Namespace, subject: Subject, options: Mapping[str, Any]) -> Made:
    return Made(subject, *placed(args, subject, options))


def placed(args: argparse.Namespace, subject: Subject, options: Mapping[str, Any]) -> "tuple[Graph, Plan]":
    """Place what the arguments say as they say it; returns the graph that the plan is for.

    Args:
        options: of the placer.
    """
    from baechi.api import place_lighter

    if (args.recompute, args.offload) != ("off", "off"):
        subject.target.check_lightens()
    with SearchLine(f"placing {subject.graph.name} by {args.placer}") as line:
        return place_lighter(
            subject.graph,
            subject.cluster,
            args.placer,
            options=options,
            seed=args.seed,
            table=subject.table,
            objective=args.objective,
            show=line.show,
            recompute=args.recompute,
            offload=args.offload,
        )
