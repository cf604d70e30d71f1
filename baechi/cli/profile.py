"""Train some steps as a plan places them, or as `place` would, note when each op and transfer ran, and keep it."""

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from baechi.cli.arguments import (
    add_lighter_arguments,
    add_placer_arguments,
    add_target_arguments,
    placer_options,
    positive,
    whole,
)
from baechi.cli.carriers import carrier_of
from baechi.cli.kept import keep_graph
from baechi.cli.output import check_folder, emit, emit_json, say
from baechi.cli.place import placed
from baechi.cli.saved import PlannedStep, is_saved, planned, planned_step
from baechi.cli.subject import load_subject, restart_tuned
from baechi.cli.workers import is_worker
from baechi.errors import BaechiError

if TYPE_CHECKING:
    from baechi.ir.plan import Plan
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
    saved = is_saved(args.target)
    if is_worker() and not saved:
        what = "torchrun's workers run a plan, and none of them is to make it"
        raise BaechiError("B108", what, help="place it first, with -o FILE, and profile that file")
    from baechi.files import write_atomic
    from baechi.profile.profiled import profile_dict
    from baechi.report.profile_text import profile_text

    for file in (args.output, None if args.keep_table else args.table):
        check_folder(file)  # before the steps, not after them
    plan, load = _saved(args) if saved else _placed(args)
    ran = carrier_of(plan.target.get("framework")).profile(plan, load, args)
    if ran is None:
        return 0
    step, found = ran
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


def _saved(args: argparse.Namespace) -> "tuple[Plan, Callable[[], PlannedStep]]":
    from baechi.report.files import read_step

    return read_step(args.target).plan, lambda: planned(args.target, args.table, new_table=not args.keep_table)


def _placed(args: argparse.Namespace) -> "tuple[Plan, Callable[[], PlannedStep]]":
    """The step of a target, placed."""
    options = placer_options(args)
    subject = load_subject(args)
    step = planned_step(subject, *placed(args, subject, options))
    if args.output:
        keep_graph(step.target, step.graph)
    return step.plan, lambda: step


def _update_table(path: str | None, found: "Profiled") -> None:
    from baechi.profile.tables import read_table, write_table

    table = read_table(path, missing_ok=True).merged(found.ops)
    say(f"wrote {write_table(table, path)}: {sum(map(len, found.ops.values()))} kinds of ops, as they ran here")
