"""The plan: which device runs which op, in which order. Data that all later stages only read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from baechi.ir.cluster import Cluster

__all__ = ["OBJECTIVES", "PLAN_SCHEMA", "Bounds", "Objective", "Placed", "Plan", "Prediction", "TransferKey"]

PLAN_SCHEMA = "baechi/plan/1"

Objective = Literal["latency", "throughput"]
OBJECTIVES: tuple[Objective, ...] = ("latency", "throughput")

TransferKey = tuple[str, str, str]
"""A transfer: tensor name, source device, destination device."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Who made the plan: the placer's name, its options, and the seconds it took."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the simulator says of the plan.

    Attributes:
        step_seconds: the makespan of one step.
        peak_bytes: highest memory by device.
        load_seconds: by device, the time that each step takes of it: computing, sending, receiving.
    """

    step_seconds: float
    peak_bytes: Mapping[str, int]
    load_seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Times that no plan on this cluster can beat.

    Attributes:
        proofs: seconds by the name of the argument, such as "critical path" or "work".

    Example:
        >>> Bounds({"critical path": 8.0, "work": 6.0}).best
        'critical path'
    """

    proofs: Mapping[str, float] = field(default_factory=dict)

    @property
    def step_seconds(self) -> float:
        """The best of the bounds, 0 without any."""
        return max(self.proofs.values(), default=0.0)

    @property
    def best(self) -> str:
        """The name of the best bound, of equals the first; empty without any."""
        return max(self.proofs, key=self.proofs.__getitem__, default="")

    def to_dict(self) -> dict[str, float]:
        """Plain data: the best bound as ``step_seconds``, then each by its name."""
        return {"step_seconds": self.step_seconds, **self.proofs}


@dataclass(frozen=True, eq=False)
class Plan:
    """A placement that fits.

    Args:
        graph: digest of the graph that it places.
        target: where that graph comes from: name, and what it takes to extract it again.
        cluster: the devices that it is made for, caps in bytes.
        placer: who made it.
        device: device name by op name.
        order: op names by device, in the order in which they run.
        transfers: all transfers, in an order that every lane keeps.
        predicted: what the simulator says.
        bounds: what no plan can beat.
        seed: of the placer's random choices.
        version: of baechi.
        objective: what was made small: the time of one step, or the highest load of a device.
    """

    graph: str
    target: Mapping[str, Any]
    cluster: Cluster
    placer: Placed
    device: Mapping[str, str]
    order: Mapping[str, tuple[str, ...]]
    transfers: tuple[TransferKey, ...]
    predicted: Prediction
    bounds: Bounds
    seed: int = 0
    version: str = ""
    objective: Objective = "latency"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self._content == other._content

    def __hash__(self) -> int:
        return hash((self.graph, self.cluster.digest, self.transfers))

    @cached_property
    def _content(self) -> tuple[object, ...]:
        return (
            self.graph,
            dict(self.target),
            self.cluster.to_dict(),
            (self.placer.name, dict(self.placer.options), self.placer.seconds),
            dict(self.device),
            {d: tuple(ops) for d, ops in self.order.items()},
            self.transfers,
            (self.predicted.step_seconds, dict(self.predicted.peak_bytes), dict(self.predicted.load_seconds)),
            self.bounds,
            self.seed,
            self.version,
            self.objective,
        )

    @property
    def objective_seconds(self) -> float:
        """What the placer made small: the predicted step, or the highest load of a device."""
        if self.objective == "throughput":
            return max(self.predicted.load_seconds.values(), default=0.0)
        return self.predicted.step_seconds

    @property
    def gap(self) -> float:
        """How far the objective is above the best bound, as a fraction of the bound."""
        bound = self.bounds.step_seconds
        return self.objective_seconds / bound - 1 if bound > 0 else 0.0
