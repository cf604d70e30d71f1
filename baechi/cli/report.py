"""Write a page about a step, or one that compares several: timeline, memory, what limits it, what would help."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from baechi.cli.output import emit_json, say
from baechi.cli.subject import planned

if TYPE_CHECKING:
    from baechi.target import Target

__all__ = ["configure", "execute"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("files", metavar="FILE", nargs="+", help="what place -o or profile -o wrote")
    parser.add_argument("-o", "--output", metavar="FILE", default="step.html", help="the page (default step.html)")
    parser.add_argument("--table", metavar="FILE", help="the measured op times that the plans were made with")


def execute(args: argparse.Namespace) -> int:
    """Simulate, look into it, and write."""
    from baechi.report.files import Step

    names = _names(args.files)
    targets: dict[str, Target] = {}
    found = [planned(path, args.table, targets) for path in args.files]
    steps = [
        Step(name, one.plan, one.graph, one.timeline, one.table, one.profiled)
        for name, one in zip(names, found, strict=True)
    ]
    if args.json:
        from baechi.report.page.data import page_of, page_to_dict

        emit_json(page_to_dict(page_of(steps)))
        return 0
    from baechi.report.page.write import write_report

    write_report(steps, args.output)
    say(f"wrote {args.output}: open it in a browser")
    return 0


def _names(files: list[str]) -> list[str]:
    """File names where they tell the files apart, else whole paths."""
    short = [Path(file).name for file in files]
    return short if len(set(short)) == len(files) else files
