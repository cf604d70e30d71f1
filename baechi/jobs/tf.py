"""A step of TensorFlow: a `tf.function` that trains, or a compiled Keras model and a batch."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from baechi.errors import BaechiError
from baechi.ir.graph import Graph
from baechi.ir.plan import Plan
from baechi.jobs.base import Program
from baechi.models.tf.base import ModelSpec as StepSpec

if TYPE_CHECKING:
    from baechi.frontends.tf import TensorFlowProgram
    from baechi.ir.cluster import Cluster
    from baechi.ir.timeline import Timeline
    from baechi.profile.measured import Measured

__all__ = ["HOST", "TensorFlowHost", "TensorFlowJob", "tensorflow_program"]

_STEP = ("step", "args", "kwargs", "expert")
_MODEL = ("model", "x", "y", "sample_weight", "expert")


@dataclass(frozen=True, eq=False)
class TensorFlowJob:
    """A training step of TensorFlow.

    Attributes:
        build: makes it: a dict with ``step``, ``args`` and ``kwargs``, or with ``model``, ``x``, ``y`` and
            ``sample_weight``. A step of ours is made anew each time, and a person's own is what it is.
        inputs: makes the args and kwargs that steps are run with.
        expert: from a module path and a number of devices to a device.
        seeded: whether `build` draws weights.
    """

    build: Callable[[], Mapping[str, Any]]
    inputs: Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]
    expert: Callable[[str, int], int | None] | None = None
    seeded: bool = False
    framework = "tensorflow"

    def load(self) -> None:
        """As `Job.load`."""
        import baechi.frontends.tf  # noqa: F401

        HOST.begin()

    def capture(self, name: str, microbatches: int = 1) -> "TensorFlowProgram":
        """As `Job.capture`; the weights are those of seed 0."""
        return self._captured(name, 0, microbatches)

    def _captured(self, name: str, seed: int, microbatches: int = 1) -> "TensorFlowProgram":
        if microbatches > 1:
            raise _missing("micro-batches", "--microbatches")
        from baechi.profile.tf.run import capture_seeded

        return capture_seeded(self.build, name=name, seed=seed)

    def _of_seed(self, program: Program, seed: int) -> "TensorFlowProgram":
        """The program with the weights of another seed."""
        own = tensorflow_program(program)
        return self._captured(own.graph.name, seed) if seed and self.seeded else own

    def lightened(self, program: Program, graph: Graph) -> "TensorFlowProgram":
        """As `Job.lightened`; a graph that was changed is refused."""
        if graph is not program.graph:
            self.check_lightens()
        return tensorflow_program(program)

    def check_lightens(self) -> None:
        """As `Job.check_lightens`."""
        raise BaechiError(
            "B108", "there is no recomputation or offloading for TensorFlow", help="leave --recompute and --offload out"
        )

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

        return measure_ops(self._of_seed(program, seed), self.inputs(), beside=beside)

    def train(
        self,
        program: Program,
        plan: Plan,
        *,
        steps: int,
        warmup: int = 1,
        seed: int = 0,
        memory: bool = True,
        devices: Mapping[str, str] | None = None,
    ) -> "Measured":
        """As `Job.train`; on other devices than this process's when `devices` names them, by device of the plan."""
        from baechi.profile.tf.run import train

        own = self._of_seed(program, seed)
        return train(own, plan, self.inputs(), steps=steps, warmup=warmup, memory=memory, devices=devices)

    def trace(
        self, program: Program, plan: Plan, *, steps: int, warmup: int = 1, seed: int = 0
    ) -> "tuple[Timeline, ...]":
        """Train some steps under TensorFlow's tracing, on logical devices; each as a timeline.

        Raises:
            BaechiError: B622 when the step uses a resource that is no variable.
        """
        from baechi.profile.tf.run import trace

        return trace(self._of_seed(program, seed), plan, self.inputs(), steps=steps, warmup=warmup)

    def train_plain(self, *, steps: int, warmup: int = 1, seed: int = 0, microbatches: int = 1) -> "Measured":
        """As `Job.train_plain`."""
        if microbatches > 1:
            raise _missing("micro-batches", "--microbatches")
        from baechi.profile.tf.run import train_plain

        return train_plain(self.build, self.inputs(), steps=steps, warmup=warmup, seed=seed)


def tensorflow_program(program: Program) -> "TensorFlowProgram":
    """A program as what it is when its job is a `TensorFlowJob`."""
    from baechi.frontends.tf import TensorFlowProgram

    assert isinstance(program, TensorFlowProgram)  # a target keeps a job and its program together
    return program


def _missing(what: str, option: str) -> BaechiError:
    return BaechiError("B108", f"there are no {what} for TensorFlow", help=f"leave {option} out")


def _flat(example: tuple[Any, Any]) -> tuple[Any, ...]:
    inputs, target = example
    return (*inputs, target)


def _own_job(spec: Mapping[str, Any]) -> TensorFlowJob:
    """The job of a person's own step or Keras model."""
    given = {name: value for name, value in spec.items() if name != "expert"}

    def inputs() -> tuple[tuple[Any, ...], dict[str, Any]]:
        from baechi.profile.tf.run import examples

        if "model" in given:
            return examples([v for v in (given.get(name) for name in _MODEL[1:-1]) if v is not None])
        return examples(given.get("args", ()), given.get("kwargs"))

    return TensorFlowJob(lambda: given, inputs, spec.get("expert"))


@contextmanager
def _silence() -> Iterator[None]:
    """TensorFlow's libraries tell of instruction sets and missing drivers when they are loaded, past every log level."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" in sys.modules:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123 - /dev/null is no path of ours
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


class TensorFlowHost:
    """What is to be known of TensorFlow before there is a step."""

    forms = "(step, args) of a tf.function, (model, x, y) of a compiled Keras model, or a dict of " + ", ".join(
        dict.fromkeys((*_STEP, *_MODEL))
    )

    def begin(self, devices: int = 1) -> None:
        """As `Host.begin`: TensorFlow makes its logical devices when it makes its first tensor."""
        with _silence():
            from baechi.backends.tf.devices import ensure_devices

            ensure_devices(devices)

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
        if isinstance(spec, StepSpec):
            count = batch or spec.default_batch
            return TensorFlowJob(lambda: spec.job(count), lambda: (_flat(spec.example(count)), {}), spec.expert, True)
        if self.is_step(spec):
            spec = {"step": spec, "args": spec.input_signature}
        elif isinstance(spec, tuple) and len(spec) == 2:
            spec = {"step": spec[0], "args": spec[1]}
        elif isinstance(spec, tuple) and len(spec) == 3:
            spec = {"model": spec[0], "x": spec[1], "y": spec[2]}
        if not isinstance(spec, Mapping):
            return None
        known = _STEP if "step" in spec else _MODEL
        return _own_job(spec) if known[0] in spec and set(spec) <= set(known) else None

    def environment(self, cap_bytes: int | None, threads: int) -> dict[str, str]:
        """As `Host.environment`: TensorFlow's own allocator refuses what is over its cap."""
        from baechi.backends.tf.limits import capped_environment

        return capped_environment(cap_bytes, threads)

    def hold(self, cap_bytes: int | None, threads: int) -> None:
        """As `Host.hold`: the environment has done it."""


HOST = TensorFlowHost()
