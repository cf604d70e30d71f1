"""Train some steps as a plan places them, note when each op and transfer ran, and keep it."""

import argparse
import json
from typing import TYPE_CHECKING

from baechi.cli.arguments import positive, whole
from baechi.cli.output import emit, emit_json, say
from baechi.cli.subject import planned, restart_tuned
from baechi.cli.workers import start_workers

if TYPE_CHECKING:
    from baechi.profile.profiled import Profiled

__all__ = ["configure", "execute"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("plan", metavar="PLAN", help="a file that place -o wrote")
    parser.add_argument("--steps", type=positive, default=20, metavar="N", help="steps to note (default 20)")
    parser.add_argument("--warmup", type=whole, default=5, metavar="N", help="steps before them (default 5)")
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help="of weights and dropout")
    parser.add_argument("-o", "--output", metavar="FILE", help="write what was measured, for report and trace")
    parser.add_argument("--table", metavar="FILE", help="the measured op times to update; this machine's without")
    parser.add_argument("--keep-table", action="store_true", help="leave the measured op times as they are")


def execute(args: argparse.Namespace) -> int:
    """Run, keep, and print what was measured beside what was predicted."""
    restart_tuned(args)
    from baechi.files import write_atomic
    from baechi.profile.apart import Order
    from baechi.profile.profiled import profile_dict, profiled
    from baechi.report.profile_text import profile_text

    step = planned(args.plan, args.table)
    order = Order(step.plan.target, args.steps, args.warmup, args.seed, traced=True)
    found = profiled(step.graph, step.plan, start_workers(step.plan, step.target, order))
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


def _update_table(path: str | None, found: "Profiled") -> None:
    from baechi.profile.tables import read_table, write_table

    table = read_table(path, missing_ok=True)
    for kind, times in found.ops.items():
        table = table.updated(kind, times)
    say(f"wrote {write_table(table, path)}: {sum(map(len, found.ops.values()))} kinds of ops, as they ran here")
