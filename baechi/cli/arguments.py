"""The arguments that name a graph, devices and costs, and how their values are read."""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from baechi.errors import BaechiError
from baechi.jobs import FRAMEWORKS
from baechi.units import parse_seconds

__all__ = [
    "add_goal_arguments",
    "add_graph_arguments",
    "add_lighter_arguments",
    "add_placer_arguments",
    "add_target_arguments",
    "check_placer",
    "pairs",
    "placer_options",
    "positive",
    "whole",
]

_CONTENTIONS = ("parallel", "duplex", "sequential")
_OBJECTIVES = ("latency", "throughput")


def add_graph_arguments(parser: argparse.ArgumentParser, also: str = "") -> None:
    """The graph; `also` says what else may name one."""
    forms = "models:NAME, package.module:callable, FILE.json or FILE.stg"
    parser.add_argument("target", metavar="TARGET", help=forms + also)
    model = parser.add_argument_group("the graph")
    model.add_argument("--framework", choices=tuple(FRAMEWORKS), help="of a model (default pytorch)")
    model.add_argument("--batch", type=positive, metavar="N", help="batch size of a model")
    model.add_argument(
        "--microbatches",
        type=positive,
        default=1,
        metavar="M",
        help="split the batch, so that devices work as a pipeline",
    )
    model.add_argument(
        "--set", action="append", metavar="K=V", default=[], help="an option of the model; of a workload file cpus=1"
    )
    model.add_argument("--ignore-colocation", action="store_true", help="drop the file's colocation groups")
    model.add_argument("--expert", metavar="FILE", help="an expert's split, for a file")


def add_target_arguments(parser: argparse.ArgumentParser, also: str = "") -> None:
    """The graph, the devices and the costs; `also` as for `add_graph_arguments`."""
    add_graph_arguments(parser, also)
    devices = parser.add_argument_group("the devices")
    devices.add_argument("--cluster", metavar="SPEC", help="4x8GiB, 4x30%%, 2xrtx2080, rtx2080+2xrtx3060, FILE.toml")
    devices.add_argument("--memory", metavar="SIZE", help="another cap for each device: 8GiB, 30%%, or bytes")
    devices.add_argument("--devices", type=positive, metavar="K", help="another number of devices")
    devices.add_argument("--contention", choices=_CONTENTIONS, help="how transfers contend")
    costs = parser.add_argument_group("the costs")
    costs.add_argument("--measure", action="store_true", help="run the step here, op by op, and keep the times")
    costs.add_argument("--table", metavar="FILE", help="where measured op times are kept")


def add_lighter_arguments(parser: argparse.ArgumentParser) -> None:
    """What may take more time for less memory."""
    trade = parser.add_argument_group("time for memory")
    trade.add_argument(
        "--recompute", default="off", metavar="WHAT", help="auto, off, or modules to run again for backward: 'layers.*'"
    )
    trade.add_argument("--offload", default="off", metavar="WHAT", help="auto or off: activations wait on the host")


def add_placer_arguments(parser: argparse.ArgumentParser) -> None:
    """Who places, and what for; `placer_options` reads them."""
    parser.add_argument("--placer", default="auto", metavar="NAME", help="auto, m-sct, m-etf, m-topo, expert, …")
    parser.add_argument("--option", action="append", metavar="K=V", default=[], help="an option of the placer")
    parser.add_argument("--budget", type=_duration, metavar="TIME", help="how long it may search: 10s")
    help_ = "see what the plan is worth when all costs err by up to 20%%; auto prefers one that bears it"
    parser.add_argument("--perturb", type=_share, metavar="SHARE", help=help_)
    parser.add_argument("--gap", type=_share, metavar="SHARE", help="stop this near to the lower bound: 5%%")
    add_goal_arguments(parser)


def add_goal_arguments(parser: argparse.ArgumentParser) -> None:
    """What every placer is asked for."""
    parser.add_argument("--objective", choices=_OBJECTIVES, default="latency", help="one step, or many in a pipeline")
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help="of random choices")


def placer_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of the placer that was asked for, checked before anything takes time.

    Raises:
        BaechiError: B102 on one that cannot be read, B505 on an unknown placer or option.
    """
    options = pairs(args.option, "--option")
    flags = ("budget", "gap", *(("perturb",) if args.placer == "auto" else ()))
    options |= {name: getattr(args, name) for name in flags if getattr(args, name) is not None}
    check_placer(args.placer, options)
    return options


def _duration(text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _share(text: str) -> float:
    """A fraction, for argparse: 5% or 0.05."""
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1e6:
        raise argparse.ArgumentTypeError(f"'{text}' is no share such as 5%")
    return share


def positive(text: str) -> int:
    """A whole number from 1 on, for argparse."""
    return _number(text, 1)


def whole(text: str) -> int:
    """A whole number from 0 on, for argparse."""
    return _number(text, 0)


def _number(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from {least} on")
    return int(text)


def pairs(items: Sequence[str], flag: str) -> dict[str, Any]:
    """Read ``key=value`` arguments; a value is JSON, or else a string.

    Raises:
        BaechiError: B102 on one without ``=``.

    Example:
        >>> pairs(["depth=3", "name=x"], "--set")
        {'depth': 3, 'name': 'x'}
    """
    found: dict[str, Any] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not (key and equals):
            raise BaechiError("B102", f"'{flag} {item}' is no key=value", help=f"write {flag} depth=3")
        try:
            found[key.replace("-", "_")] = json.loads(value)
        except ValueError:
            found[key.replace("-", "_")] = value
    return found


def check_placer(name: str, options: Mapping[str, Any]) -> None:
    """Refuse an unknown placer or option before anything takes time.

    Raises:
        BaechiError: B505.
    """
    from baechi.placers import get_placer

    default = get_placer(name)
    for key, value in options.items():
        like = getattr(default, key, None)
        if isinstance(like, int | float) and (isinstance(value, bool) != isinstance(like, bool)):
            raise BaechiError(
                "B505", f"option '{key}' of placer '{name}' is {value!r}", help=f"it is {like} by default"
            )
        if isinstance(like, int | float) and not isinstance(value, int | float):
            raise BaechiError("B505", f"option '{key}' of placer '{name}' is {value!r}", help="write a number")
    get_placer(name, **options)
