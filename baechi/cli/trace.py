"""Write a plan's step, or a measured one, as a Chrome trace, for Perfetto."""

import argparse
import json

from baechi.cli.output import emit, emit_json, say
from baechi.cli.saved import viewed

__all__ = ["configure", "execute"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "plan", metavar="PLAN", help="what place -o or profile -o wrote; of a profile, the measured step"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write it; standard output without")
    parser.add_argument("--table", metavar="FILE", help="the measured op times that the plan was made with")


def execute(args: argparse.Namespace) -> int:
    """Simulate, check and write."""
    from baechi.files import write_atomic
    from baechi.report.trace import check_trace, chrome_trace

    step = viewed(args.plan, args.table)
    timeline = step.profiled.timeline if step.profiled is not None else step.timeline
    trace = chrome_trace(step.graph, step.plan.cluster, timeline)
    check_trace(trace["traceEvents"])
    text = json.dumps(trace, separators=(",", ":"), allow_nan=False)
    if args.output:
        write_atomic(args.output, text)
        say(f"wrote {args.output}: open it at https://ui.perfetto.dev or chrome://tracing")
    elif args.json:
        emit_json({"schema": "baechi/trace/1", **trace})
    else:
        emit(text)
    return 0
