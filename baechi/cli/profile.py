"""Train some steps as a plan places them, or as `place` would, note when each op and transfer ran, and keep it."""

import argparse
import json
from typing import TYPE_CHECKING

from baechi.cli.arguments import (
    add_lighter_arguments,
    add_placer_arguments,
    add_target_arguments,
    placer_options,
    positive,
    whole,
)
from baechi.cli.output import emit, emit_json, progress, say
from baechi.cli.place import placed
from baechi.cli.subject import PlannedStep, is_saved, load_subject, planned, restart_tuned
from baechi.cli.workers import start_workers

if TYPE_CHECKING:
    from baechi.profile.profiled import Profiled

__all__ = ["configure", "execute"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_target_arguments(parser, " or PLAN, a file that place -o wrote; else placed as place does")
    add_placer_arguments(parser)
    add_lighter_arguments(parser)
    parser.add_argument("--steps", type=positive, default=20, metavar="N", help="steps to note (default 20)")
    parser.add_argument("--warmup", type=whole, default=5, metavar="N", help="steps before them (default 5)")
    parser.add_argument("-o", "--output", metavar="FILE", help="write what was measured, for report and trace")
    parser.add_argument("--keep-table", action="store_true", help="leave the measured op times as they are")


def execute(args: argparse.Namespace) -> int:
    """Run, keep, and print what was measured beside what was predicted."""
    restart_tuned(args)
    from baechi.files import write_atomic
    from baechi.profile.profiled import profile_dict
    from baechi.report.profile_text import profile_text

    step = planned(args.target, args.table) if is_saved(args.target) else _placed(args)
    found = _profiled(step, args)
    if args.output:
        write_atomic(args.output, json.dumps(profile_dict(step.plan, found)) + "\n")
        say(f"wrote {args.output}")
    if not args.keep_table:
        _update_table(args.table, found)
    if args.json:
        emit_json(profile_dict(step.plan, found))
    else:
        emit(profile_text(step.graph, step.plan, step.timeline, found))
    return 0


def _placed(args: argparse.Namespace) -> PlannedStep:
    """The step of a target, placed."""
    from baechi.api import timeline_of
    from baechi.passes.lighten import Lighten

    options = placer_options(args)
    subject = load_subject(args)
    graph, plan = placed(args, subject, options)
    target = subject.target.lightened(Lighten.of(plan.target))
    return PlannedStep(plan, target, graph, timeline_of(graph, plan, subject.table), subject.table)


def _profiled(step: PlannedStep, args: argparse.Namespace) -> "Profiled":
    from baechi.jobs.tf import TensorFlowJob
    from baechi.profile.profiled import profiled

    plan, job = step.plan, step.target.code
    options = {"steps": args.steps, "warmup": args.warmup, "seed": args.seed}
    if isinstance(job, TensorFlowJob):
        program = step.target.program
        with progress(f"training {step.target.name}"):
            return profiled(step.graph, plan, job.train(program, plan, **options), job.trace(program, plan, **options))
    from baechi.profile.apart import Order, measured_of
    from baechi.profile.traced import busy_times, timelines

    reports = start_workers(plan, step.target, Order(plan.target, **options, traced=True))
    notes = {report.device: report.notes for report in reports if report.notes is not None}
    traced = timelines(step.graph, plan, notes)
    return profiled(step.graph, plan, measured_of(reports), traced, busy_times(notes))


def _update_table(path: str | None, found: "Profiled") -> None:
    from baechi.profile.tables import read_table, write_table

    table = read_table(path, missing_ok=True)
    for kind, times in found.ops.items():
        table = table.updated(kind, times)
    say(f"wrote {write_table(table, path)}: {sum(map(len, found.ops.values()))} kinds of ops, as they ran here")
