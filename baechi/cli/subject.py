"""What the arguments stand for: the graph, the devices, the costs, the target of a saved plan."""

import argparse
import json
import os
import re
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from baechi.cli.arguments import pairs
from baechi.cli.output import hush_libraries, progress, say
from baechi.errors import BaechiError

if TYPE_CHECKING:
    from baechi.cost import CostTable
    from baechi.ir.cluster import Cluster
    from baechi.ir.graph import Graph
    from baechi.ir.plan import Plan
    from baechi.ir.timeline import Timeline
    from baechi.jobs import Job
    from baechi.profile.machine import Machine
    from baechi.profile.profiled import Profiled
    from baechi.target import Target

__all__ = [
    "PlannedStep",
    "Subject",
    "extract",
    "is_saved",
    "load_subject",
    "local_rates",
    "measured_table",
    "named_target",
    "planned",
    "restart_tuned",
    "saved_target",
    "target_of",
]

_MOST_DEFAULT_DEVICES = 4
_SAVED, _HEAD = re.compile(r'\{\s*"schema":\s*"baechi/(plan|profile)/'), 100


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


def target_of(args: argparse.Namespace) -> "Target":
    """The target that the arguments name; errors as `load_target`."""
    from baechi.target import load_target

    target = load_target(
        args.target,
        batch=args.batch,
        options=pairs(args.set, "--set"),
        ignore_colocation=args.ignore_colocation,
        expert=args.expert,
        microbatches=args.microbatches,
        framework=args.framework,
    )
    if target.job is not None and target.job.framework == "tensorflow" and args.is_process:
        hush_libraries()  # TensorFlow tells of every trace
    return target


def extract(args: argparse.Namespace) -> "tuple[Target, float]":
    """The target with its graph extracted or read, and the seconds that this took; errors as `load_subject`."""
    target = target_of(args)
    if target.job is not None:
        target.job.load()
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
    from baechi.jobs import host_of

    if args.cluster:
        devices = parse_cluster(args.cluster)  # a typo is found before the model is traced
        if args.framework:
            host_of(args.framework).begin(len(devices))
    target, seconds = extract(args)
    cluster = _cluster(args, target)
    table = _table(args, target, cluster)
    cluster = resolve(target.graph, cluster, table)
    return Subject(target, target.with_expert(len(cluster)), cluster, table, seconds)


def _cluster(args: argparse.Namespace, target: "Target") -> "Cluster":
    from baechi.config import local_cluster, parse_cluster, resize

    own = target.defaults.cluster
    if args.cluster:
        measured = _rates(target.job) if target.job is not None and _is_local(parse_cluster(args.cluster)) else None
        is_file = Path(args.cluster).is_file()
        contention = args.contention or (own.contention if own is not None and not is_file else None)
        cluster = parse_cluster(args.cluster, contention=contention, measured=measured)
        if target.job is None and all(op.seconds is not None for op in target.graph.ops):
            cluster = replace(cluster, cores={})  # declared times are those of devices that share nothing
    elif own is not None:
        cluster = replace(own, contention=args.contention) if args.contention else own
    elif target.job is not None and (gpus := target.job.gpus()) is not None:
        cluster = replace(gpus, contention=args.contention) if args.contention else gpus
        say(f"note: no --cluster, so the {len(gpus)} GPUs of this machine")
    else:
        count = args.devices or min(_MOST_DEFAULT_DEVICES, len(os.sched_getaffinity(0)))
        cluster = local_cluster(count, args.memory, _rates(target.job) if target.job is not None else None)
        cluster = replace(cluster, contention=args.contention) if args.contention else cluster
        say(f"note: no --cluster, so {count} virtual devices on this machine's processor")
        return cluster
    return resize(cluster, devices=args.devices, memory=args.memory)


def _is_local(cluster: "Cluster") -> bool:
    return any(d.type.partition("-")[0] == "cpu" for d in cluster.devices)


@dataclass(frozen=True, eq=False)
class PlannedStep:
    """A saved plan, and what is known of it by simulating it again.

    Attributes:
        plan: as it was saved.
        target: where its graph is from.
        graph: what it places, extracted again.
        timeline: of its step.
        table: the measured op times in it.
        profiled: a run of it, when the file is a profile.
    """

    plan: "Plan"
    target: "Target"
    graph: "Graph"
    timeline: "Timeline"
    table: "CostTable | None"
    profiled: "Profiled | None" = None


def is_saved(name: str) -> bool:
    """Whether a name is a file with a plan or a profile, rather than a target."""
    try:
        with Path(name).open(encoding="utf-8", errors="replace") as file:
            return _SAVED.match(file.read(_HEAD)) is not None
    except OSError:
        return False


def planned(path: str, table: str | None = None, known: "dict[str, Target] | None" = None) -> PlannedStep:
    """Read a plan, extract its graph again and simulate the step; says when it now takes another time.

    Args:
        path: of the plan.
        table: the file of measured op times that it was made with; this machine's when None.
        known: targets that were extracted before, by what names them; another one is added.

    Raises:
        BaechiError: B4xx on a plan that cannot be read or is for another graph; as `saved_target`.
    """
    from baechi.api import timeline_of
    from baechi.report.files import read_step
    from baechi.units import format_seconds

    saved, costs = read_step(path), measured_table(table)
    plan, known = saved.plan, {} if known is None else known
    key = json.dumps([plan.graph, plan.target], sort_keys=True)
    target = known[key] = known.get(key) or _found_target(path, plan)
    timeline = timeline_of(target.graph, plan, costs)
    before = plan.predicted.step_seconds
    if abs(timeline.step_seconds - before) > 1e-9 * before:
        now = format_seconds(timeline.step_seconds)
        say(f"note: op times changed since the plan was made: it was {format_seconds(before)} then, {now} now")
    return PlannedStep(plan, target, target.graph, timeline, costs, saved.profiled)


def _found_target(path: str, plan: "Plan") -> "Target":
    """The target of a plan in a file; what is wrong with it is the file's fault to whoever only names the file."""
    try:
        return saved_target(plan)
    except BaechiError as error:
        if error.code.startswith("B4"):
            raise
        what = f"the graph of {path} cannot be had again: {error.what}"
        raise BaechiError(
            "B410", what, help=error.help or "put back what it was made from, or place it again"
        ) from None


def local_rates(*, refresh: bool = False) -> "Machine":
    """What this machine's processor does, measured once."""
    from baechi.profile.machine import measure_cpu

    with progress("measuring this machine's processor"):
        return measure_cpu(refresh=refresh)


def _rates(job: "Job") -> dict[str, float]:
    """What it does under a job's framework, by the names of `config.LOCAL`."""
    with progress("measuring this machine's processor"):
        return job.rates()


def _table(args: argparse.Namespace, target: "Target", cluster: "Cluster") -> "CostTable | None":
    from baechi.profile.tables import measured_share, read_table, write_table

    if args.measure and target.job is None:
        raise BaechiError("B603", f"'{target.name}' is a file of costs: there is nothing to measure")
    table = read_table(args.table, missing_ok=args.measure)
    if args.measure:
        from baechi.profile.beside import neighbours_of

        with progress(f"measuring the ops of {target.name}"):
            beside = neighbours_of(len(cluster), len(os.sched_getaffinity(0)))
            table = table.updated("cpu", target.code.measure_ops(target.program, beside=beside))
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


def named_target(plan: "Plan") -> "Target":
    """The target of a plan; nothing is captured or read yet.

    Raises:
        BaechiError: B406 when the plan does not say where its graph is from.
    """
    from baechi.jobs import host_of
    from baechi.passes.lighten import Lighten
    from baechi.target import load_target

    known = plan.target
    text, batch, options, expert = (known.get(k) for k in ("target", "batch", "options", "expert"))
    microbatches, framework = known.get("microbatches", 1), known.get("framework")
    good = isinstance(text, str) and isinstance(batch, int | None) and isinstance(options, dict | None)
    good = good and isinstance(microbatches, int) and isinstance(framework, str | None)
    if not (good and isinstance(expert, str | None)):
        raise BaechiError(
            "B406",
            f"the plan for '{known.get('name', 'graph')}' does not say where its graph is from",
            help="it was made by Python code: use it there, by ModelPlan.pinned()",
        )
    if framework is not None:
        host_of(framework).begin(len(plan.cluster))
    target = load_target(
        str(text),
        batch=batch,
        options=options,
        ignore_colocation=bool(known.get("ignore_colocation")),
        expert=expert,
        microbatches=microbatches,
        framework=framework,
    )
    return target.lightened(Lighten.of(known))


def saved_target(plan: "Plan") -> "Target":
    """The target of a plan, with its graph.

    Raises:
        BaechiError: B402 when it gives another graph, B406 when the plan does not say where its graph is from.
    """
    target = named_target(plan)
    with progress(f"extracting {target.name}"):
        graph = target.graph
    if graph.digest != plan.graph:
        raise BaechiError(
            "B402",
            f"the plan is for another graph than '{target.name}' gives now ({plan.graph}, not {graph.digest})",
            help="the model, its options or the version of its framework changed: place it again",
        )
    return target
