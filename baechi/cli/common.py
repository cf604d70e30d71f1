"""What several commands share: the arguments that name a graph and devices, and what they stand for."""

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baechi.cli.output import progress, say
from baechi.errors import BaechiError

if TYPE_CHECKING:
    from baechi.cost import CostTable
    from baechi.ir.cluster import Cluster
    from baechi.ir.graph import Graph
    from baechi.ir.plan import Plan
    from baechi.profile.machine import Machine
    from baechi.target import Target

__all__ = [
    "Subject",
    "add_target_arguments",
    "check_placer",
    "extract",
    "load_subject",
    "local_rates",
    "measured_table",
    "pairs",
    "positive",
    "restart_tuned",
    "saved_target",
    "target_of",
    "whole",
]

_CONTENTIONS = ("parallel", "duplex", "sequential")
_MOST_DEFAULT_DEVICES = 4


@dataclass(frozen=True, eq=False)
class Subject:
    """What a command is about.

    Attributes:
        target: where the graph comes from.
        graph: with the expert's split for so many devices, when there is one.
        cluster: caps in bytes.
        table: measured op times.
        seconds: what extracting or reading the graph took.
    """

    target: "Target"
    graph: "Graph"
    cluster: "Cluster"
    table: "CostTable | None"
    seconds: float


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


def add_target_arguments(parser: argparse.ArgumentParser) -> None:
    """The graph, the devices and the costs."""
    parser.add_argument("target", metavar="TARGET", help="models:NAME, package.module:callable or FILE.json")
    model = parser.add_argument_group("the graph")
    model.add_argument("--batch", type=positive, metavar="N", help="batch size of a model")
    model.add_argument("--set", action="append", metavar="K=V", default=[], help="an option of the model")
    model.add_argument("--ignore-colocation", action="store_true", help="drop the file's colocation groups")
    model.add_argument("--expert", metavar="FILE", help="an expert's split, for a file")
    devices = parser.add_argument_group("the devices")
    devices.add_argument("--cluster", metavar="SPEC", help="4x8GiB, 4x30%%, 2xrtx2080, rtx2080+2xrtx3060, FILE.toml")
    devices.add_argument("--memory", metavar="SIZE", help="another cap for each device: 8GiB, 30%%, or bytes")
    devices.add_argument("--devices", type=positive, metavar="K", help="another number of devices")
    devices.add_argument("--contention", choices=_CONTENTIONS, help="how transfers contend")
    costs = parser.add_argument_group("the costs")
    costs.add_argument("--measure", action="store_true", help="run the step here once, op by op, and keep the times")
    costs.add_argument("--table", metavar="FILE", help="where measured op times are kept")


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


def target_of(args: argparse.Namespace) -> "Target":
    """The target that the arguments name; errors as `load_target`."""
    from baechi.target import load_target

    return load_target(
        args.target,
        batch=args.batch,
        options=pairs(args.set, "--set"),
        ignore_colocation=args.ignore_colocation,
        expert=args.expert,
    )


def extract(args: argparse.Namespace) -> "tuple[Target, float]":
    """The target with its graph extracted or read, and the seconds that this took; errors as `load_subject`."""
    target = target_of(args)
    if target.job is not None:
        importlib.import_module("baechi.frontends.pytorch")  # torch's own import is no part of the extraction
    began = time.perf_counter()
    with progress(f"extracting {target.name}"):
        _ = target.graph
    return target, time.perf_counter() - began


def load_subject(args: argparse.Namespace) -> Subject:
    """Extract the graph, read the cluster and find measured times, and say what was found.

    Raises:
        BaechiError: B1xx, B2xx, B3xx, B7xx on what cannot be found or read.
    """
    from baechi.api import resolve
    from baechi.config import parse_cluster

    if args.cluster:
        parse_cluster(args.cluster)  # a typo is found before the model is traced
    target, seconds = extract(args)
    cluster = _cluster(args, target)
    table = _table(args, target, cluster)
    cluster = resolve(target.graph, cluster, table)
    return Subject(target, target.with_expert(len(cluster)), cluster, table, seconds)


def _cluster(args: argparse.Namespace, target: "Target") -> "Cluster":
    from baechi.config import local_cluster, parse_cluster, resize

    own = target.defaults.cluster
    if args.cluster:
        measured = _rates() if target.job is not None and _is_local(parse_cluster(args.cluster)) else None
        is_file = Path(args.cluster).is_file()
        contention = args.contention or (own.contention if own is not None and not is_file else None)
        cluster = parse_cluster(args.cluster, contention=contention, measured=measured)
        if target.job is None and all(op.seconds is not None for op in target.graph.ops):
            cluster = replace(cluster, cores={})  # declared times are those of devices that share nothing
    elif own is not None:
        cluster = replace(own, contention=args.contention) if args.contention else own
    else:
        count = args.devices or min(_MOST_DEFAULT_DEVICES, len(os.sched_getaffinity(0)))
        cluster = local_cluster(count, args.memory, _rates() if target.job is not None else None)
        cluster = replace(cluster, contention=args.contention) if args.contention else cluster
        say(f"note: no --cluster, so {count} virtual devices on this machine's processor")
        return cluster
    return resize(cluster, devices=args.devices, memory=args.memory)


def _is_local(cluster: "Cluster") -> bool:
    return any(d.type == "cpu" for d in cluster.devices)


def local_rates(*, refresh: bool = False) -> "Machine":
    """What this machine's processor does, measured once."""
    from baechi.profile.machine import measure_cpu

    with progress("measuring this machine's processor"):
        return measure_cpu(refresh=refresh)


def _rates() -> dict[str, float]:
    """The same by the names of `config.LOCAL`."""
    machine = local_rates()
    link = machine.link()
    return {
        "flops_per_second": machine.flops_per_second,
        "bytes_per_second": machine.bytes_per_second,
        "launch_seconds": machine.launch_seconds,
        "link_latency_seconds": link.latency_seconds,
        "link_bytes_per_second": link.bytes_per_second,
    }


def _table(args: argparse.Namespace, target: "Target", cluster: "Cluster") -> "CostTable | None":
    from baechi.profile.tables import measured_share, read_table, write_table

    if args.measure and target.job is None:
        raise BaechiError("B603", f"'{target.name}' is a file of costs: there is nothing to measure")
    table = read_table(args.table, missing_ok=args.measure)
    if args.measure:
        from baechi.profile.ops import profile_ops

        with progress(f"measuring the ops of {target.name}"):
            table = table.updated("cpu", profile_ops(target.program).by_key)
        say(f"wrote {write_table(table, args.table)}")
    kinds = {d.type: d for d in cluster.devices}
    for kind, device in kinds.items():
        count, share = measured_share(target.graph, device, table)
        if count:
            say(f"note: {count} ops ({share:.0%} of the time on {kind}) have measured times")
    return table if table.seconds else None


def measured_table(path: str | None) -> "CostTable | None":
    """The measured op times of a file, or of this machine when None; None when there are none."""
    from baechi.profile.tables import read_table

    table = read_table(path)
    return table if table.seconds else None


def restart_tuned(args: argparse.Namespace) -> None:
    """Start the process anew with an allocator that keeps its memory: measured steps are up to half longer otherwise.

    Does nothing when the environment is right already, or the command was called from Python.
    """
    from baechi.profile.machine import tuned_environment

    missing = tuned_environment()
    if not (args.is_process and missing and sys.platform == "linux"):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, sys.orig_argv, {**os.environ, **missing})


def saved_target(plan: "Plan") -> "Target":
    """The target of a plan.

    Raises:
        BaechiError: B402 when it gives another graph, B406 when the plan does not say where its graph is from.
    """
    from baechi.target import load_target

    known = plan.target
    text, batch, options, expert = (known.get(k) for k in ("target", "batch", "options", "expert"))
    good = isinstance(text, str) and isinstance(batch, int | None) and isinstance(options, dict | None)
    if not (good and isinstance(expert, str | None)):
        raise BaechiError(
            "B406",
            f"the plan for '{known.get('name', 'graph')}' does not say where its graph is from",
            help="it was made by Python code: use it there, by ModelPlan.pinned()",
        )
    target = load_target(
        str(text),
        batch=batch,
        options=options,
        ignore_colocation=bool(known.get("ignore_colocation")),
        expert=expert,
    )
    with progress(f"extracting {target.name}"):
        graph = target.graph
    if graph.digest != plan.graph:
        raise BaechiError(
            "B402",
            f"the plan is for another graph than '{target.name}' gives now ({plan.graph}, not {graph.digest})",
            help="the model, its options or the version of torch changed: place it again",
        )
    return target
