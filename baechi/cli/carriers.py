"""How the plans of each framework are carried out from the command line: run, and noted op by op."""

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from baechi.cli.children import child_environment
from baechi.cli.output import note_load, progress
from baechi.cli.saved import PlannedStep, named_target, saved_target
from baechi.cli.workers import be_worker, is_worker, start_workers

if TYPE_CHECKING:
    from baechi.ir.plan import Plan
    from baechi.profile.apart import Order, Report
    from baechi.profile.measured import Measured
    from baechi.profile.profiled import Profiled
    from baechi.target import Target

__all__ = ["Carrier", "Ran", "carrier_of"]


class Ran(NamedTuple):
    """What a run of a plan was of, and what it measured.

    Attributes:
        target: what was trained.
        measured: of its steps.
        parameters: by device, how many it holds; None where they are variables of one process.
    """

    target: "Target"
    measured: "Measured"
    parameters: Mapping[str, int] | None = None


class Carrier(NamedTuple):
    """A framework's way with plans.

    Attributes:
        in_threads: whether a device is a thread of one process, unless the person asks for processes.
        keeps_checkpoints: whether its processes do.
        run: trains a plan's target with a process for each device, by the arguments of `baechi run`; None in a process
            that has nothing to say.
        profile: trains the step and notes when each op and transfer ran, by the arguments of `baechi profile`; None in a
            process that has nothing to say. The step is asked for where something is said.
    """

    in_threads: bool
    keeps_checkpoints: bool
    run: "Callable[[Plan, argparse.Namespace], Ran | None]"
    profile: "Callable[[Plan, Callable[[], PlannedStep], argparse.Namespace], tuple[PlannedStep, Profiled] | None]"


def _run_workers(plan: "Plan", args: argparse.Namespace) -> Ran | None:
    from baechi.profile.apart import Order, measured_of

    order = Order(
        plan.target,
        args.steps,
        args.warmup,
        args.seed,
        checkpoint=str(Path(args.checkpoint).resolve()) if args.checkpoint else "",
        every=args.every or args.steps + args.warmup,
        resume=args.resume,
    )
    if _follow(plan, order):
        return None
    target = saved_target(plan)
    reports = _lead(plan, target, order)
    return Ran(target, measured_of(reports), {report.device: report.parameters for report in reports})


def _profile_workers(
    plan: "Plan", load: Callable[[], PlannedStep], args: argparse.Namespace
) -> "tuple[PlannedStep, Profiled] | None":
    from baechi.profile.apart import Order, measured_of
    from baechi.profile.profiled import profiled
    from baechi.profile.traced import busy_steps, timelines

    order = Order(plan.target, args.steps, args.warmup, args.seed, traced=True)
    if _follow(plan, order):
        return None
    step = load()
    reports = _lead(plan, step.target, order)
    notes = {report.device: report.notes for report in reports if report.notes is not None}
    traced = timelines(step.graph, plan, notes)
    return step, profiled(step.graph, plan, measured_of(reports), traced, busy_steps(notes))


def _follow(plan: "Plan", order: "Order") -> bool:
    """Be one of torchrun's workers that do not lead; False in any other process."""
    if not is_worker() or os.environ["RANK"] == "0":
        return False
    be_worker(plan, named_target(plan), order)
    return True


def _lead(plan: "Plan", target: "Target", order: "Order") -> "tuple[Report, ...]":
    """What all workers report: torchrun's to its first, else those that are started here."""
    if not is_worker():
        note_load()
        return start_workers(plan, target, order)
    reports = be_worker(plan, target, order)
    assert reports is not None  # the first is told
    return reports


def _run_servers(plan: "Plan", args: argparse.Namespace) -> Ran:
    from baechi.jobs.tf import HOST, TensorFlowJob

    HOST.begin()
    from baechi.backends.tf.servers import start_servers

    with start_servers(plan, environment=child_environment()) as devices:
        target = saved_target(plan)
        job = target.code
        assert isinstance(job, TensorFlowJob)  # the plan says so
        options = {"steps": args.steps, "warmup": args.warmup, "seed": args.seed}
        with progress(f"training {target.name} in {len(set(devices.values()))} processes"):
            return Ran(target, job.train(target.program, plan, **options, devices=devices))


def _profile_logical(
    plan: "Plan", load: Callable[[], PlannedStep], args: argparse.Namespace
) -> "tuple[PlannedStep, Profiled]":
    from baechi.jobs.tf import TensorFlowJob
    from baechi.profile.profiled import profiled

    step = load()
    job, program = step.target.code, step.target.program
    assert isinstance(job, TensorFlowJob)  # the job says so
    options = {"steps": args.steps, "warmup": args.warmup, "seed": args.seed}
    with progress(f"training {step.target.name}"):
        measured, traced = job.train(program, plan, **options), job.trace(program, plan, **options)
    return step, profiled(step.graph, plan, measured, traced)


_PYTORCH = Carrier(False, True, _run_workers, _profile_workers)
_TENSORFLOW = Carrier(True, False, _run_servers, _profile_logical)


def carrier_of(framework: object) -> Carrier:
    """The carrier of a framework: of PyTorch unless it is TensorFlow."""
    return _TENSORFLOW if framework == "tensorflow" else _PYTORCH
