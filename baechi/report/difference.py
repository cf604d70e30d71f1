"""A predicted step beside a measured one: where the time of ops differs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from baechi.ir.graph import Graph
from baechi.ir.op import Op
from baechi.ir.timeline import Timeline

__all__ = ["Difference", "differences", "worst_ops"]


@dataclass(frozen=True, slots=True)
class Difference:
    """Time that some ops were to take, and took.

    Attributes:
        name: what they share.
        ops: how many they are.
        predicted, measured: seconds, summed.
    """

    name: str
    ops: int
    predicted: float
    measured: float

    @property
    def ratio(self) -> float:
        """Measured over predicted; infinite when nothing was predicted."""
        if self.predicted:
            return self.measured / self.predicted
        return float("inf") if self.measured else 1.0


def differences(
    graph: Graph, predicted: Timeline, measured: Timeline, name: Callable[[Op], str]
) -> tuple[Difference, ...]:
    """Ops that share a name (a kind, a phase, a device), the largest absolute differences first."""
    sums: dict[str, list[float]] = {}
    for op in graph.ops:
        row = sums.setdefault(name(op), [0, 0.0, 0.0])
        row[0] += 1
        for k, step in enumerate((predicted, measured)):
            span = step.span[op.name]
            row[1 + k] += span.end - span.start
    return _sorted(Difference(key, int(n), a, b) for key, (n, a, b) in sums.items())


def worst_ops(graph: Graph, predicted: Timeline, measured: Timeline, count: int) -> tuple[Difference, ...]:
    """The ops whose time differs most."""
    return differences(graph, predicted, measured, lambda op: op.name)[:count]


def _sorted(rows: Iterable[Difference]) -> tuple[Difference, ...]:
    return tuple(sorted(rows, key=lambda d: (-abs(d.measured - d.predicted), d.name)))
