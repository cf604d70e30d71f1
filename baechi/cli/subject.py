"""What the arguments stand for: the graph, the devices, the costs."""

import argparse
import os
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
    from baechi.jobs import Job
    from baechi.profile.machine import Machine
    from baechi.target import Target

__all__ = [
    "Subject",
    "extract",
    "load_subject",
    "local_rates",
    "measured_table",
    "quieten",
    "restart_tuned",
    "target_of",
]

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
    quieten(args, target.job.framework if target.job is not None else None)
    return target


def quieten(args: argparse.Namespace, framework: str | None) -> None:
    """Let a framework talk less: TensorFlow tells of every trace, and of every socket that closes."""
    if framework == "tensorflow" and args.is_process:
        hush_libraries()


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
    from baechi.config import cores, local_cluster, parse_cluster, resize

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
        count = args.devices or min(_MOST_DEFAULT_DEVICES, cores())
        cluster = local_cluster(count, args.memory, _rates(target.job) if target.job is not None else None)
        cluster = replace(cluster, contention=args.contention) if args.contention else cluster
        say(f"note: no --cluster, so {count} virtual devices on this machine's processor")
        return cluster
    return resize(cluster, devices=args.devices, memory=args.memory)


def _is_local(cluster: "Cluster") -> bool:
    return any(d.type.partition("-")[0] == "cpu" for d in cluster.devices)


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
    table = read_table(args.table, missing_ok=args.measure or not getattr(args, "keep_table", True))
    if args.measure:
        from baechi.config import cores
        from baechi.profile.beside import neighbours_of

        with progress(f"measuring the ops of {target.name}"):
            beside = neighbours_of(len(cluster), cores())
            table = table.updated("cpu", target.code.measure_ops(target.program, beside=beside))
        say(f"wrote {write_table(table, args.table)}")
    kinds = {d.type: d for d in cluster.devices}
    for kind, device in kinds.items():
        count, share = measured_share(target.graph, device, table)
        if count:
            say(f"note: {count} ops ({share:.0%} of the time on {kind}) have measured times")
    return table if table.seconds else None


def measured_table(path: str | None, *, missing_ok: bool = False) -> "CostTable | None":
    """The measured op times of a file, or of this machine when None; None when there are none."""
    from baechi.profile.tables import read_table

    table = read_table(path, missing_ok=missing_ok)
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
