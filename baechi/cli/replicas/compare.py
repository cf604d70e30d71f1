"""Run methods on one problem with equal steps, bytes or time, and draw their loss against all three.

A method is a name, or name@label to have it twice. Options: --set cser.h=16, --set cser@wide.c2=none, or
--set lr=0.05 for all. With --bytes or --time a method stops when that is used up; --steps then is the most it takes.
"""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from baechi.cli.arguments import pairs, positive
from baechi.cli.output import emit, emit_json, progress, say
from baechi.errors import BaechiError
from baechi.units import parse_bytes, parse_seconds

if TYPE_CHECKING:
    from baechi.replicas.comparison.race import Entry, Race
    from baechi.replicas.methods.hostile import Hostile

__all__ = ["configure", "execute"]

_METHODS = "sync-sgd,local-sgd,cser"
_STEPS, _MOST_STEPS = 300, 3000


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from baechi.replicas.methods import METHODS
    from baechi.replicas.problems import PROBLEMS

    parser.epilog = "methods: " + " ".join(METHODS)
    parser.add_argument("--methods", metavar="NAME,…", default=_METHODS, help=f"the first is the measure ({_METHODS})")
    parser.add_argument("--problem", default="mnist", choices=tuple(PROBLEMS), help="what they train (default mnist)")
    parser.add_argument("--workers", type=int, default=8, metavar="N", help="replicas (default 8)")
    parser.add_argument("--steps", type=int, metavar="N", help=f"local steps of each worker (default {_STEPS})")
    parser.add_argument("--bytes", metavar="SIZE", help="what a worker may send, such as 2MB: equal bytes")
    parser.add_argument("--time", metavar="TIME", help="of the cost model, such as 30s: equal time")
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="runs of each, from seeds 0 to N-1 (default 1)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="M.OPTION=VALUE", help="an option of a method")
    parser.add_argument(
        "--attack", metavar="NAME", help="the hostile workers' messages are one: NAME or NAME:OPTION=VALUE:…"
    )
    parser.add_argument("--hostile", type=positive, default=1, metavar="Q", help="with --attack: how many (default 1)")
    parser.add_argument("--data", action="append", default=[], metavar="OPTION=VALUE", help="an option of the problem")
    parser.add_argument(
        "--points", type=int, default=40, metavar="N", help="how often the loss is looked at (default 40)"
    )
    parser.add_argument("--step-time", default="10ms", metavar="TIME", help="cost model: a gradient (default 10ms)")
    parser.add_argument("--bandwidth", default="12.5MB", metavar="SIZE", help="cost model: bytes a second (12.5MB)")
    parser.add_argument("--latency", default="0", metavar="TIME", help="cost model: of a message (default 0)")
    parser.add_argument("-o", "--output", metavar="FILE", help="draw the curves: a page of its own")


def execute(args: argparse.Namespace) -> int:
    """Run, print, and draw."""
    from baechi.replicas.comparison.table import race_to_dict, race_to_text

    if args.output:
        _drawable()
    with progress("comparing"):
        found = _race(args)
    if args.json:
        emit_json({"schema": "baechi/replicas-compare/1", **race_to_dict(found)})
    else:
        emit(race_to_text(found))
    if args.output:
        from baechi.replicas.comparison.page import write_race

        write_race(found, args.output)
        say(f"wrote {args.output}: open it in a browser")
    return 0


def _race(args: argparse.Namespace) -> "Race":
    from baechi.replicas.comparison.race import Budget, race
    from baechi.replicas.methods.lockstep import Costs
    from baechi.replicas.problems import problem

    data = dict(_pair("--data", text) for text in args.data)
    limited = args.bytes is not None or args.time is not None
    steps = args.steps if args.steps is not None else _MOST_STEPS if limited else _STEPS
    budget = Budget(
        steps,
        parse_bytes(args.bytes) if args.bytes is not None else None,
        _seconds("--time", args.time) if args.time is not None else None,
    )
    costs = Costs(
        _seconds("--step-time", args.step_time), parse_bytes(args.bandwidth), _seconds("--latency", args.latency)
    )
    options = {name: _value(text) for name, text in data.items()}
    return race(
        _entries(args.methods.split(","), args.set),
        lambda seed: problem(args.problem, workers=args.workers, seed=seed, **options),
        args.workers,
        budget,
        range(args.seeds),
        points=args.points,
        costs=costs,
        hostile=_hostile(args),
    )


def _hostile(args: argparse.Namespace) -> "Hostile | None":
    from baechi.replicas.methods.hostile import Hostile

    if args.attack is None:
        return None
    name, *given = args.attack.split(":")
    return Hostile(name, args.hostile, pairs(given, "--attack"))


def _entries(labels: Sequence[str], settings: Sequence[str]) -> "list[Entry]":
    """The methods, each with its options and those that are for all."""
    from baechi.replicas.comparison.race import Entry
    from baechi.replicas.methods import option_from_text

    texts: dict[str, dict[str, str]] = {label: {} for label in labels}
    for setting in settings:
        name, text = _pair("--set", setting)
        label, dot, option = name.rpartition(".")
        if dot and label not in texts:
            raise BaechiError(
                "B108", f"--set {setting}: no method '{label}' takes part", help="one of: " + ", ".join(texts)
            )
        for mine in [label] if dot else texts:
            texts[mine][option] = text
    return [
        Entry(label, name, {option: option_from_text(name, option, text) for option, text in texts[label].items()})
        for label in labels
        for name in [label.partition("@")[0]]
    ]


def _pair(flag: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise BaechiError("B108", f"{flag} {text}: no '='", help="write NAME=VALUE")
    return name, value


def _value(text: str) -> Any:
    """A whole number, a number or a word."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _seconds(flag: str, text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise BaechiError("B108", f"{flag}: {error}") from None


def _drawable() -> None:
    """Before the work, not after it, say that the page cannot be drawn."""
    import importlib.util

    for name in ("bokeh", "jinja2"):
        if importlib.util.find_spec(name) is None:
            raise BaechiError(
                "B407", f"a page needs {name}, which is not installed", help="pip install 'baechi[report]'"
            )
