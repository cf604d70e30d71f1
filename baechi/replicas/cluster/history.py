"""What a hub remembers of its replica, and what the histories of all say about the age of their models."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["History", "version_ages"]

_KEPT = 2_000


@dataclass
class History:
    """Steps, losses and exchanges of a replica.

    Attributes:
        steps: that all its workers have made.
        losses: by step.
        apart: how far the last mix moved the model, as a share of its norm.
        mixed: messages that had an effect.
        exchanges: that it began and that were answered.
        sent: bytes of models that it sent.
        intervals: seconds from one step to the next, of the last ones.
    """

    steps: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    apart: float = 0.0
    mixed: int = 0
    exchanges: int = 0
    sent: int = 0
    intervals: list[float] = field(default_factory=list)
    _began: tuple[int, float] | None = None
    _last: float = 0.0

    def add(self, step: int, now: float) -> None:
        """All workers are past a step."""
        if self._began is not None:
            self.intervals = [*self.intervals[-_KEPT:], (now - self._last) / max(1, step - self.steps)]
        self.steps, self._last = step, now
        if self._began is None:
            self._began = (step, now)

    @property
    def rate(self) -> float:
        """Steps a second since the first."""
        if self._began is None or self._last <= self._began[1]:
            return 0.0
        return (self.steps - self._began[0]) / (self._last - self._began[1])

    @property
    def exchange_rate(self) -> float:
        """Exchanges a second since the first step."""
        return 0.0 if self._began is None else self.exchanges / max(time.monotonic() - self._began[1], 1e-9)


def version_ages(statuses: Mapping[int, Mapping[str, Any]]) -> dict[int, float]:
    """By replica, how many of its updates the others' models miss on average.

    Example:
        >>> version_ages({0: {"version": 5, "reflects": {0: 5}}, 1: {"version": 3, "reflects": {0: 4, 1: 3}}})
        {0: 1.0, 1: 3.0}
    """
    return {
        i: sum(max(0, status["version"] - other["reflects"].get(i, 0)) for j, other in statuses.items() if j != i)
        / max(1, len(statuses) - 1)
        for i, status in statuses.items()
    }
