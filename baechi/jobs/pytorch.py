"""A step of a PyTorch module."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from baechi.ir.graph import Graph
from baechi.ir.plan import Plan
from baechi.jobs.base import Program
from baechi.models.base import ModelSpec, get

if TYPE_CHECKING:
    import torch

    from baechi.frontends.pytorch import TorchProgram
    from baechi.ir.cluster import Cluster
    from baechi.profile.measured import Measured

__all__ = ["HOST", "TorchHost", "TorchJob", "torch_program"]

_FIELDS = ("module", "args", "kwargs", "target", "loss", "optimizer", "optimizer_options", "expert")


@dataclass(frozen=True, eq=False)
class TorchJob:
    """A training step of a module.

    Attributes:
        build: makes the module.
        args, kwargs, target: example inputs.
        loss: as for `capture`.
        optimizer: name, class or instance; `optimizer_options` over it.
        expert: from a module path and a number of devices to a device.
    """

    build: "Callable[[], torch.nn.Module]"
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None
    target: Any = None
    loss: Any = "output"
    optimizer: Any = "sgd"
    optimizer_options: Mapping[str, Any] | None = None
    expert: Callable[[str, int], int | None] | None = None
    framework = "pytorch"

    @property
    def inputs(self) -> list[Any]:
        """All that a step takes, as it is flattened: args, kwargs and, if there is one, the target."""
        return [tuple(self.args), dict(self.kwargs or {}), *([] if self.target is None else [self.target])]

    def load(self) -> None:
        """As `Job.load`."""
        import baechi.frontends.pytorch  # noqa: F401

    def capture(self, name: str, microbatches: int = 1) -> "TorchProgram":
        """As `Job.capture`."""
        from baechi.frontends.pytorch import build_meta, capture

        return capture(
            build_meta(self.build),
            self.args,
            self.kwargs,
            loss=self.loss,
            target=self.target,
            optimizer=self.optimizer,
            optimizer_options=self.optimizer_options,
            name=name,
            microbatches=microbatches,
        )

    def lightened(self, program: Program, graph: Graph) -> "TorchProgram":
        """As `Job.lightened`."""
        from baechi.frontends.pytorch import conform

        return conform(torch_program(program), graph)

    def check_lightens(self) -> None:
        """As `Job.check_lightens`: torch has both."""

    def rates(self) -> dict[str, float]:
        """As `Job.rates`; a device is a process, as `baechi run` has it."""
        from baechi.profile.machine import measure_cpu

        return measure_cpu().rates()

    def gpus(self) -> "Cluster | None":
        """As `Job.gpus`."""
        from baechi.profile.devices import cuda_cluster

        return cuda_cluster()

    def measure_ops(self, program: Program, *, seed: int = 0, beside: int = 0) -> dict[str, float]:
        """As `Job.measure_ops`."""
        from baechi.profile.run import measure_ops

        return measure_ops(torch_program(program), self.build, self.inputs, seed=seed, beside=beside)

    def train(
        self, program: Program, plan: Plan, *, steps: int, warmup: int = 1, seed: int = 0, memory: bool = True
    ) -> "Measured":
        """As `Job.train`."""
        from baechi.profile.run import train

        options: Any = {"steps": steps, "warmup": warmup, "seed": seed, "memory": memory}
        return train(torch_program(program), plan, self.build, self.inputs, **options)

    def train_plain(self, *, steps: int, warmup: int = 1, seed: int = 0, microbatches: int = 1) -> "Measured":
        """As `Job.train_plain`."""
        from baechi.profile.plain import train_plain

        return train_plain(
            self.build,
            self.args,
            self.kwargs,
            self.target,
            loss=self.loss,
            optimizer=self.optimizer,
            optimizer_options=self.optimizer_options,
            steps=steps,
            warmup=warmup,
            seed=seed,
            microbatches=microbatches,
        )


def torch_program(program: Program) -> "TorchProgram":
    """A program as what it is when its job is a `TorchJob`."""
    from baechi.frontends.pytorch.program import TorchProgram

    assert isinstance(program, TorchProgram)  # a target keeps a job and its program together
    return program


class TorchHost:
    """What is to be known of torch before there is a step."""

    forms = "(module, args), or a dict of " + ", ".join(_FIELDS)

    def begin(self, devices: int = 1) -> None:
        """As `Host.begin`: torch needs no word."""

    def model(self, name: str, options: Mapping[str, Any]) -> ModelSpec:
        """As `Host.model`."""
        spec: ModelSpec = get(name, **options)
        return spec

    def is_step(self, made: Any) -> bool:
        """As `Host.is_step`: a module alone does not say what it is called with."""
        return False

    def job_of(self, spec: Any, batch: int | None) -> TorchJob | None:
        """As `Host.job_of`: of a `ModelSpec`, a pair of module and arguments, or a dict."""
        if isinstance(spec, ModelSpec):
            args, target = spec.example(batch or spec.default_batch)
            return TorchJob(spec.build, args, None, target, spec.loss, *spec.optimizer, spec.expert)
        if isinstance(spec, tuple) and len(spec) == 2:
            spec = {"module": spec[0], "args": spec[1]}
        if not (isinstance(spec, Mapping) and "module" in spec and set(spec) <= set(_FIELDS)):
            return None
        rest = dict(spec)
        module = rest.pop("module")
        return TorchJob(lambda: module, tuple(rest.pop("args", ())), **rest)

    def environment(self, cap_bytes: int | None, threads: int) -> dict[str, str]:
        """As `Host.environment`."""
        return {"OMP_NUM_THREADS": str(threads)}

    def hold(self, cap_bytes: int | None, threads: int) -> None:
        """As `Host.hold`."""
        from baechi.backends.heap import map_large_blocks
        from baechi.backends.limits import limit_memory
        from baechi.profile.plain import limit_threads

        limit_threads(threads)
        if cap_bytes is not None:
            map_large_blocks()  # it must not die of holes in a heap
            limit_memory(cap_bytes)


HOST = TorchHost()
