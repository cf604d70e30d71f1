"""A predicted step beside a measured one: where the time of ops differs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from baechi.ir.graph import Graph
from baechi.ir.op import Op
from baechi.ir.timeline import Timeline

__all__ = ["Difference", "differences", "worst_ops"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A predicted amount and what was measured, in seconds or bytes.

    Attributes:
        name: of what.
        count: of how many things it is the sum.
        predicted, measured: the amounts.
    """

    name: str
    count: int
    predicted: float
    measured: float

    @property
    def ratio(self) -> float | None:
        """Measured over predicted; None where nothing was predicted."""
        return self.measured / self.predicted if self.predicted > 0 else None


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
