"""Train a few steps as a plan places them, measured beside predicted."""

import argparse
import os
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baechi.cli.arguments import positive, whole
from baechi.cli.output import emit, emit_json, hush_libraries, progress, say
from baechi.cli.servers import run_servers
from baechi.cli.subject import named_target, restart_tuned, saved_target
from baechi.cli.workers import be_worker, is_worker, start_workers
from baechi.errors import BaechiError

if TYPE_CHECKING:
    from baechi.ir.plan import Plan
    from baechi.profile.apart import Report
    from baechi.profile.measured import Measured
    from baechi.report.text import PlainRun
    from baechi.target import Target

__all__ = ["configure", "execute", "run_plan"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("plan", metavar="PLAN", help="a file that place -o wrote")
    parser.add_argument("--steps", type=positive, default=5, metavar="N", help="steps to time (default 5)")
    parser.add_argument("--warmup", type=whole, default=1, metavar="N", help="steps before them (default 1)")
    parser.add_argument(
        "--workers",
        choices=("processes", "threads"),
        help="what a device is: a process with only its own memory (default), or a thread of one process "
        "(default for TensorFlow, whose logical devices they are)",
    )
    parser.add_argument("--plain", action="store_true", help="train the plain model too, under the cap of one device")
    kept = parser.add_argument_group("checkpoints")
    kept.add_argument("--checkpoint", metavar="DIR", help="keep checkpoints there, the last one at the end")
    kept.add_argument("--every", type=positive, metavar="N", help="steps from one to the next")
    kept.add_argument("--resume", action="store_true", help="go on from the newest one, under this plan")
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help="of weights and dropout")


def execute(args: argparse.Namespace) -> int:
    """Run, and print what was measured."""
    if (args.every or args.resume) and not args.checkpoint:
        raise BaechiError("B108", "--every and --resume need --checkpoint DIR", help="say where checkpoints are kept")
    restart_tuned(args)
    from baechi.ir.json import read_plan
    from baechi.profile.apart import measured_of
    from baechi.report.text import run_text

    plan = read_plan(args.plan)
    is_tensorflow = plan.target.get("framework") == "tensorflow"
    threads = args.workers == "threads" or (args.workers is None and is_tensorflow)
    if args.checkpoint and (threads or is_tensorflow):
        what = "checkpoints are kept by PyTorch's worker processes"
        raise BaechiError(
            "B108", what, help="leave --checkpoint out" if is_tensorflow else "leave --workers threads out"
        )
    if is_tensorflow and args.is_process:
        hush_libraries()  # TensorFlow tells of every socket that closes
    parameters = None
    if threads:
        target = saved_target(plan)
        measured = run_plan(target, plan, steps=args.steps, warmup=args.warmup, seed=args.seed)
    elif is_tensorflow:
        target, measured = run_servers(plan, steps=args.steps, warmup=args.warmup, seed=args.seed)
    else:
        target, reports = _apart(args, plan)
        if reports is None:
            return 0
        measured = measured_of(reports)
        parameters = {report.device: report.parameters for report in reports}
    plain = _plain_runs(args, plan) if args.plain else ()
    if args.json:
        emit_json(_to_dict(plan, measured, parameters, plain))
        return 0
    emit(
        run_text(
            plan,
            name=target.name,
            seconds=measured.all_seconds,
            median=measured.step_seconds,
            spread=measured.spread,
            losses=measured.losses,
            peaks=measured.peak_bytes,
            parameters=parameters,
            plain=plain,
        )
    )
    return 0


def _apart(args: argparse.Namespace, plan: "Plan") -> "tuple[Target, tuple[Report, ...] | None]":
    """Run with a process for each device; no reports when this process is a worker that prints nothing."""
    from baechi.profile.apart import Order

    order = Order(
        plan.target,
        args.steps,
        args.warmup,
        args.seed,
        checkpoint=str(Path(args.checkpoint).resolve()) if args.checkpoint else "",
        every=args.every or args.steps + args.warmup,
        resume=args.resume,
    )
    if is_worker():
        target = named_target(plan) if os.environ["RANK"] != "0" else saved_target(plan)
        return target, be_worker(plan, target, order)
    target = saved_target(plan)
    _note_load()
    return target, start_workers(plan, target, order)


def _plain_runs(args: argparse.Namespace, plan: "Plan") -> "tuple[PlainRun, ...]":
    """Train the plain model under the cap of the largest device, and without a cap when it dies of that."""
    from baechi.cli.plain import run_plain_apart
    from baechi.report.text import PlainRun

    largest = max(plan.cluster.devices, key=lambda device: device.cap)
    runs: list[PlainRun] = []
    for cap in (largest.cap, None):
        with progress("training the plain model"):
            found = run_plain_apart(
                plan.target,
                cap_bytes=cap,
                steps=args.steps,
                warmup=args.warmup,
                seed=args.seed,
                threads=largest.threads,
            )
        median = statistics.median(found.seconds) if found.seconds else None
        runs.append(PlainRun(cap, median, found.peak_bytes, found.losses, found.error))
        if found.error is None:
            break
    return tuple(runs)


def _note_load() -> None:
    """Say when others use the processor, for then steps take longer than they need."""
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 2 * (os.cpu_count() or 1):
        say("note: other programs use this machine's processor too, so steps take longer than they need")


def run_plan(
    target: "Target", plan: "Plan", *, steps: int, warmup: int = 1, seed: int = 0, memory: bool = True
) -> "Measured":
    """Train a target as planned.

    Raises:
        BaechiError: B603 for a file, which has no code to run; B6xx as `Job.train`.
    """
    program = target.program
    _note_load()
    with progress(f"training {target.name}"):
        return target.code.train(program, plan, steps=steps, warmup=warmup, seed=seed, memory=memory)


def _to_dict(
    plan: "Plan",
    measured: "Measured",
    parameters: Mapping[str, int] | None,
    plain: "tuple[PlainRun, ...]",
) -> dict[str, Any]:
    return {
        "schema": "baechi/run/1",
        "graph": {"digest": plan.graph, "target": dict(plan.target)},
        "step_seconds": {
            "median": measured.step_seconds,
            "spread": measured.spread,
            "all": list(measured.all_seconds),
        },
        "losses": list(measured.losses),
        "peak_bytes": dict(measured.peak_bytes),
        "parameters": None if parameters is None else dict(parameters),
        "plain": [asdict(run) for run in plain],
        "predicted": {
            "step_seconds": plan.predicted.step_seconds,
            "peak_bytes": dict(plan.predicted.peak_bytes),
            "load_seconds": dict(plan.predicted.load_seconds),
        },
    }
