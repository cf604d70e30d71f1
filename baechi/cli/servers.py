"""Run a TensorFlow plan with a server for each device."""

from typing import TYPE_CHECKING

from baechi.cli.children import child_environment
from baechi.cli.output import progress
from baechi.cli.subject import saved_target

if TYPE_CHECKING:
    from baechi.ir.plan import Plan
    from baechi.profile.measured import Measured
    from baechi.target import Target

__all__ = ["run_servers"]


def run_servers(plan: "Plan", *, steps: int, warmup: int = 1, seed: int = 0) -> "tuple[Target, Measured]":
    """Train a plan's target in worker processes, each held to the memory of its device.

    Raises:
        BaechiError: B4xx as `saved_target`, B6xx as `start_servers` and `PlacedStep`.
    """
    from baechi.jobs.tf import HOST, TensorFlowJob

    HOST.begin()
    from baechi.backends.tf.servers import start_servers

    with start_servers(plan, environment=child_environment()) as devices:
        target = saved_target(plan)
        job = target.code
        assert isinstance(job, TensorFlowJob)  # the plan says so
        with progress(f"training {target.name} in {len(set(devices.values()))} processes"):
            measured = job.train(target.program, plan, steps=steps, warmup=warmup, seed=seed, devices=devices)
        return target, measured
