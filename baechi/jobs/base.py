"""What a job is, and what a framework needs of a process that trains a plain model."""

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from baechi.errors import BaechiError

if TYPE_CHECKING:
    from baechi.ir.cluster import Cluster
    from baechi.ir.graph import Graph
    from baechi.ir.plan import Plan
    from baechi.profile.measured import Measured

__all__ = ["DEFAULT_FRAMEWORK", "FRAMEWORKS", "Host", "Job", "Program", "host_of"]

FRAMEWORKS = {"pytorch": "baechi.jobs.pytorch", "tensorflow": "baechi.jobs.tf"}
"""By name of a framework, where its jobs are."""

DEFAULT_FRAMEWORK = "pytorch"


class Program(Protocol):
    """A captured step: its graph, and what its framework needs to carry it out."""

    @property
    def graph(self) -> "Graph":
        """The step as baechi sees it."""


class Job(Protocol):
    """A training step that can be captured, measured and run."""

    @property
    def framework(self) -> str:
        """One of `FRAMEWORKS`."""

    @property
    def expert(self) -> Callable[[str, int], int | None] | None:
        """From a module path and a number of devices to a device; None when no expert gave a split."""

    def load(self) -> None:
        """Import the framework and what captures its steps: their time is no part of a capture."""

    def capture(self, name: str, microbatches: int) -> Program:
        """Trace the step.

        Raises:
            BaechiError: B108 on what the framework does not have, B7xx when the step cannot be captured.
        """

    def lightened(self, program: Program, graph: "Graph") -> Program:
        """The program of its graph after recomputation and offloading.

        Raises:
            BaechiError: B108 when the framework has neither.
        """

    def check_lightens(self) -> None:
        """Nothing, or B108 when the framework has no recomputation and offloading."""

    def rates(self) -> dict[str, float]:
        """What this machine's processor does under the framework, by the names of `config.LOCAL`; measured once."""

    def gpus(self) -> "Cluster | None":
        """The GPUs that the framework may use here; None when there is none."""

    def measure_ops(self, program: Program, *, seed: int = 0, beside: int = 0) -> dict[str, float]:
        """Time of each kind of op on one core, in seconds by `Op.key`, in steps on real weights.

        Args:
            seed: of the weights.
            beside: how many other processes compute meanwhile.
        """

    def train(
        self, program: Program, plan: "Plan", *, steps: int, warmup: int = 1, seed: int = 0, memory: bool = True
    ) -> "Measured":
        """Train some steps as planned, on all devices from this process.

        Args:
            steps: how many are timed.
            warmup: how many come before.
            seed: of weights and dropout.
            memory: whether more steps measure the memory of each device.

        Raises:
            BaechiError: B6xx.
        """

    def train_plain(self, *, steps: int, warmup: int = 1, seed: int = 0, microbatches: int = 1) -> "Measured":
        """Train the model as it is; its one device is ``cpu`` in `Measured.peak_bytes`."""


class Host(Protocol):
    """What is to be known of a framework before there is a step: the ``HOST`` of each module of `FRAMEWORKS`."""

    @property
    def forms(self) -> str:
        """What a person's callable may return."""

    def begin(self, devices: int = 1) -> None:
        """Called before code of the framework runs: there will be a plan for so many devices."""

    def model(self, name: str, options: Mapping[str, Any]) -> Any:
        """The specification of a model of ours.

        Raises:
            BaechiError: B101 on an unknown name, B102 on a bad option.
        """

    def is_step(self, made: Any) -> bool:
        """Whether what a person named is a step itself, with all that is to be known of its inputs."""

    def job_of(self, spec: Any, batch: int | None) -> Job | None:
        """The job of a model's specification or of what a person's callable returned; None when it is neither."""

    def environment(self, cap_bytes: int | None, threads: int) -> Mapping[str, str]:
        """Variables that the process must start with."""

    def hold(self, cap_bytes: int | None, threads: int) -> None:
        """Hold this process from here on: called once its code is imported, before a model is made."""


def host_of(framework: str) -> Host:
    """How processes of a framework are held.

    Raises:
        BaechiError: B108 on an unknown framework.
    """
    if framework not in FRAMEWORKS:
        raise BaechiError("B108", f"'{framework}' is no framework", help="one of: " + ", ".join(FRAMEWORKS))
    host: Host = importlib.import_module(FRAMEWORKS[framework]).HOST
    return host
