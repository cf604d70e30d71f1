"""Train a few steps as a plan places them, measured beside predicted."""

import argparse
import os
from typing import TYPE_CHECKING, Any

from baechi.cli.arguments import positive, whole
from baechi.cli.output import emit, emit_json, progress, say
from baechi.cli.subject import restart_tuned, saved_target

if TYPE_CHECKING:
    from baechi.ir.plan import Plan
    from baechi.profile.step import Measured
    from baechi.target import Target

__all__ = ["configure", "execute", "run_plan"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("plan", metavar="PLAN", help="a file that place -o wrote")
    parser.add_argument("--steps", type=positive, default=5, metavar="N", help="steps to time (default 5)")
    parser.add_argument("--warmup", type=whole, default=1, metavar="N", help="steps before them (default 1)")
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help="of weights and dropout")


def execute(args: argparse.Namespace) -> int:
    """Run, and print what was measured."""
    restart_tuned(args)
    from baechi.ir.json import read_plan
    from baechi.report.text import run_text

    plan = read_plan(args.plan)
    target = saved_target(plan)
    measured = run_plan(target, plan, steps=args.steps, warmup=args.warmup, seed=args.seed)
    if args.json:
        emit_json(_to_dict(plan, measured))
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
        )
    )
    return 0


def run_plan(
    target: "Target", plan: "Plan", *, steps: int, warmup: int = 1, seed: int = 0, memory: bool = True
) -> "Measured":
    """Train a target as planned.

    Raises:
        BaechiError: B603 for a file, which has no code to run; B6xx as `train`.
    """
    program, job = target.program, target.job
    assert job is not None  # `program` refuses a target without code
    from baechi.profile.run import train

    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 2 * (os.cpu_count() or 1):
        say("note: other programs use this machine's processor too, so steps take longer than they need")
    with progress(f"training {target.name}"):
        return train(program, plan, job.build, job.inputs, steps=steps, warmup=warmup, seed=seed, memory=memory)


def _to_dict(plan: "Plan", measured: "Measured") -> dict[str, Any]:
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
        "predicted": {
            "step_seconds": plan.predicted.step_seconds,
            "peak_bytes": dict(plan.predicted.peak_bytes),
        },
    }
