"""A step of TensorFlow: a `tf.function` that trains, or a compiled Keras model and a batch."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from baechi.errors import BaechiError
from baechi.ir.graph import Graph
from baechi.ir.plan import Plan
from baechi.jobs.base import Program

if TYPE_CHECKING:
    from baechi.frontends.tf import TensorFlowProgram
    from baechi.ir.cluster import Cluster
    from baechi.profile.measured import Measured

__all__ = ["HOST", "TensorFlowHost", "TensorFlowJob"]

_STEP = ("step", "args", "kwargs", "expert")
_MODEL = ("model", "x", "y", "sample_weight", "expert")


@dataclass(frozen=True, eq=False)
class TensorFlowJob:
    """A training step of TensorFlow.

    Attributes:
        build: makes what is to be captured: a dict with ``step``, ``args`` and ``kwargs``, or one with
            ``model``, ``x``, ``y`` and ``sample_weight``. A model of ours is made anew each time.
        expert: from a module path and a number of devices to a device.
    """

    build: Callable[[], Mapping[str, Any]]
    expert: Callable[[str, int], int | None] | None = None
    framework = "tensorflow"

    def load(self) -> None:
        """As `Job.load`."""
        import baechi.frontends.tf  # noqa: F401

    def capture(self, name: str, microbatches: int = 1) -> "TensorFlowProgram":
        """As `Job.capture`; the weights are those of seed 0."""
        if microbatches > 1:
            raise _missing("micro-batches", "--microbatches")
        from baechi.profile.tf.run import capture_seeded

        return capture_seeded(self.build, name=name, seed=0)

    def lightened(self, program: Program, graph: Graph) -> "TensorFlowProgram":
        """As `Job.lightened`; a graph that was changed is refused."""
        if graph is not program.graph:
            raise _missing("recomputation and offloading", "--recompute and --offload")
        return tensorflow_program(program)

    def rates(self) -> dict[str, float]:
        """As `Job.rates`; a device is a logical one of this process."""
        from baechi.profile.tf.machine import measure_cpu

        return measure_cpu().rates(processes=False)

    def gpus(self) -> "Cluster | None":
        """As `Job.gpus`."""
        from baechi.profile.tf.machine import gpu_cluster

        return gpu_cluster()

    def measure_ops(self, program: Program, *, seed: int = 0, beside: int = 0) -> dict[str, float]:
        """As `Job.measure_ops`."""
        from baechi.profile.tf.run import measure_ops

        return measure_ops(tensorflow_program(program), self.build, seed=seed, beside=beside)

    def train(
        self, program: Program, plan: Plan, *, steps: int, warmup: int = 1, seed: int = 0, memory: bool = True
    ) -> "Measured":
        """As `Job.train`."""
        from baechi.profile.tf.run import train

        options: Any = {"steps": steps, "warmup": warmup, "seed": seed, "memory": memory}
        return train(tensorflow_program(program), plan, self.build, **options)

    def train_plain(self, *, steps: int, warmup: int = 1, seed: int = 0, microbatches: int = 1) -> "Measured":
        """As `Job.train_plain`."""
        if microbatches > 1:
            raise _missing("micro-batches", "--microbatches")
        from baechi.profile.tf.run import train_plain

        return train_plain(self.build, steps=steps, warmup=warmup, seed=seed)


def tensorflow_program(program: Program) -> "TensorFlowProgram":
    """A program as what it is when its job is a `TensorFlowJob`."""
    from baechi.frontends.tf import TensorFlowProgram

    assert isinstance(program, TensorFlowProgram)  # a target keeps a job and its program together
    return program


def _missing(what: str, option: str) -> BaechiError:
    return BaechiError("B108", f"there are no {what} for TensorFlow", help=f"leave {option} out")


class TensorFlowHost:
    """What is to be known of TensorFlow before there is a step."""

    forms = "(step, args) of a tf.function, (model, x, y) of a compiled Keras model, or a dict of " + ", ".join(
        dict.fromkeys((*_STEP, *_MODEL))
    )

    def model(self, name: str, options: Mapping[str, Any]) -> Any:
        """As `Host.model`."""
        from baechi.models.tf import get

        return get(name, **options)

    def is_step(self, made: Any) -> bool:
        """As `Host.is_step`: a `tf.function` with a signature."""
        tensorflow = sys.modules.get("tensorflow")  # who made one has imported it
        if tensorflow is None or not isinstance(made, tensorflow.types.experimental.PolymorphicFunction):
            return False
        return made.input_signature is not None

    def job_of(self, spec: Any, batch: int | None) -> TensorFlowJob | None:
        """As `Host.job_of`."""
        if hasattr(spec, "job"):
            return TensorFlowJob(lambda: spec.build(batch or spec.default_batch), spec.expert)
        if self.is_step(spec):
            spec = {"step": spec, "args": spec.input_signature}
        elif isinstance(spec, tuple) and len(spec) == 2:
            spec = {"step": spec[0], "args": spec[1]}
        elif isinstance(spec, tuple) and len(spec) == 3:
            spec = {"model": spec[0], "x": spec[1], "y": spec[2]}
        if not isinstance(spec, Mapping):
            return None
        if not (("step" in spec and set(spec) <= set(_STEP)) or ("model" in spec and set(spec) <= set(_MODEL))):
            return None
        given = {name: value for name, value in spec.items() if name != "expert"}
        return TensorFlowJob(lambda: given, spec.get("expert"))

    def environment(self, cap_bytes: int | None, threads: int) -> dict[str, str]:
        """As `Host.environment`: TensorFlow's own allocator refuses what is over its cap."""
        from baechi.backends.tf.limits import capped_environment

        return capped_environment(cap_bytes, threads)

    def hold(self, cap_bytes: int | None, threads: int) -> None:
        """As `Host.hold`: the environment has done it."""


HOST = TensorFlowHost()
