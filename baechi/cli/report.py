"""Write a page about a step, or one that compares several: timeline, memory, what limits it, what would help."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baechi.cli.output import emit_json, say
from baechi.cli.saved import viewed
from baechi.errors import BaechiError
from baechi.ir.bulk import uncollected

if TYPE_CHECKING:
    from baechi.ir.graph import Graph

__all__ = ["configure", "execute"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("files", metavar="FILE", nargs="+", help="what place -o, profile -o or replicas -o wrote")
    parser.add_argument("-o", "--output", metavar="FILE", default="step.html", help="the page (default step.html)")
    parser.add_argument("--table", metavar="FILE", help="the measured op times that the plans were made with")


def execute(args: argparse.Namespace) -> int:
    """Simulate, look into it, and write."""
    if (runs := [_run_of(path) for path in args.files]) and all(run is not None for run in runs):
        return _report_run(args, runs)
    graphs: dict[str, Graph] = {}
    with uncollected():
        steps = [
            replace(viewed(path, args.table, graphs), name=name)
            for path, name in zip(args.files, _names(args.files), strict=True)
        ]
    if args.json:
        from baechi.report.page.data import page_of, page_to_dict

        emit_json(page_to_dict(page_of(steps)))
        return 0
    from baechi.report.page.write import write_report

    write_report(steps, args.output)
    say(f"wrote {args.output}: open it in a browser")
    return 0


_RUNS = ("baechi/replicas-run/", "baechi/replicas-crews/")


def _run_of(path: str) -> dict[str, Any] | None:
    """The run of replicas in a file; None when it is something else."""
    from baechi.document import load_json

    value = load_json(path, "B405", missing="B401", malformed="B402").value
    is_run = isinstance(value, dict) and str(value.get("schema", "")).startswith(_RUNS)
    return value if is_run else None


def _report_run(args: argparse.Namespace, runs: Sequence[Any]) -> int:
    """The page of a run of replicas.

    Raises:
        BaechiError: B108 on several, B407 without Bokeh, B809 when something is missing in the file.
    """
    if len(runs) > 1:
        raise BaechiError("B108", "a page shows one run of replicas", help="write one for each")
    if args.json:
        emit_json(runs[0])
        return 0
    try:
        from baechi.replicas.cluster.page import write_run
    except ModuleNotFoundError as error:
        what = f"a report needs {error.name}, which is not installed"
        raise BaechiError("B407", what, help="pip install 'baechi[report]'") from None
    try:
        write_run(runs[0], args.output)
    except (KeyError, TypeError, ValueError) as error:
        what = f"{args.files[0]} is no whole run of replicas: {type(error).__name__}: {error}"
        raise BaechiError("B809", what, help="write it again with baechi replicas -o") from None
    say(f"wrote {args.output}: open it in a browser")
    return 0


def _names(files: list[str]) -> list[str]:
    """File names where they tell the files apart, else whole paths."""
    short = [Path(file).name for file in files]
    return short if len(set(short)) == len(files) else files
