"""Train a few steps as a plan places them, measured beside predicted."""

import argparse
import statistics
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from baechi.cli.arguments import positive, whole
from baechi.cli.carriers import Ran, carrier_of
from baechi.cli.output import emit, emit_json, note_load, progress
from baechi.cli.saved import saved_target
from baechi.cli.subject import quieten, restart_tuned
from baechi.errors import BaechiError

if TYPE_CHECKING:
    from baechi.ir.plan import Plan
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
    from baechi.report.text import run_text

    plan = read_plan(args.plan)
    framework = plan.target.get("framework")
    carrier = carrier_of(framework)
    threads = args.workers == "threads" or (args.workers is None and carrier.in_threads)
    if args.checkpoint and (threads or not carrier.keeps_checkpoints):
        what = "checkpoints are kept by PyTorch's worker processes"
        left = "--workers threads" if carrier.keeps_checkpoints else "--checkpoint"
        raise BaechiError("B108", what, help=f"leave {left} out")
    quieten(args, framework)
    ran = _in_threads(plan, args) if threads else carrier.run(plan, args)
    if ran is None:
        return 0
    measured = ran.measured
    plain = _plain_runs(args, plan) if args.plain else ()
    if args.json:
        emit_json(_to_dict(plan, ran, plain))
        return 0
    emit(
        run_text(
            plan,
            name=ran.target.name,
            seconds=measured.all_seconds,
            median=measured.step_seconds,
            spread=measured.spread,
            losses=measured.losses,
            peaks=measured.peak_bytes,
            parameters=ran.parameters,
            plain=plain,
        )
    )
    return 0


def _in_threads(plan: "Plan", args: argparse.Namespace) -> Ran:
    target = saved_target(plan)
    return Ran(target, run_plan(target, plan, steps=args.steps, warmup=args.warmup, seed=args.seed))


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


def run_plan(
    target: "Target", plan: "Plan", *, steps: int, warmup: int = 1, seed: int = 0, memory: bool = True
) -> "Measured":
    """Train a target as planned.

    Raises:
        BaechiError: B603 for a file, which has no code to run; B6xx as `Job.train`.
    """
    program = target.program
    note_load()
    with progress(f"training {target.name}"):
        return target.code.train(program, plan, steps=steps, warmup=warmup, seed=seed, memory=memory)


def _to_dict(plan: "Plan", ran: Ran, plain: "tuple[PlainRun, ...]") -> dict[str, Any]:
    measured = ran.measured
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
        "parameters": None if ran.parameters is None else dict(ran.parameters),
        "plain": [asdict(run) for run in plain],
        "predicted": {
            "step_seconds": plan.predicted.step_seconds,
            "peak_bytes": dict(plan.predicted.peak_bytes),
            "load_seconds": dict(plan.predicted.load_seconds),
        },
    }
