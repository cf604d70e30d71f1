"""A run of replicas as data: what it is asked for, and what becomes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from baechi.replicas.cluster.body import Ended
from baechi.replicas.cluster.history import version_ages
from baechi.replicas.cluster.hub import HubOptions
from baechi.replicas.peer import Arrays

__all__ = ["Ages", "Outcome", "RunOptions", "Statuses"]

Statuses = Mapping[int, Mapping[str, Any]]
"""By replica, what `Hub.status` gives."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Of a run of replicas.

    Attributes:
        hub: how many there are and how they mix.
        every: steps from one update, which others see, to the next.
        buffers: whether floating-point buffers are mixed.
        checkpoint: directory of checkpoints; none when empty.
        checkpoint_every: steps from one to the next.
        resume: whether to go on from the newest ones.
        address: of a Ray cluster; None for one on this machine, for as long as the run takes.
        run: a name; replicas of the same name on one cluster find each other.
        restarts: how often each replica is brought back.
        method: by which replicas train together instead of gossiping; none when empty.
        method_options: of it.
    """

    hub: HubOptions
    every: int = 1
    buffers: bool = False
    checkpoint: str = ""
    checkpoint_every: int = 100
    resume: bool = False
    address: str | None = None
    run: str = "run"
    restarts: int = 3
    method: str = ""
    method_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run.

    Attributes:
        statuses: of each replica at its end.
        ended: how each ended.
        restarts: how often each was brought back.
        models: of each, at its end.
        ages: how many of its updates the others' models missed, on average while all trained.
        seconds: of the whole.
    """

    statuses: Statuses
    ended: Mapping[int, Ended]
    restarts: Mapping[int, int]
    models: Mapping[int, Arrays]
    ages: Mapping[int, float]
    seconds: float


class Ages:
    """The version ages seen while all replicas trained."""

    def __init__(self) -> None:
        self._seen: dict[int, list[float]] = {}

    def add(self, statuses: Statuses) -> None:
        """Look at all once, unless some have not begun."""
        if all(status["version"] > 0 for status in statuses.values()):
            for index, age in version_ages(statuses).items():
                self._seen.setdefault(index, []).append(age)

    def means(self) -> dict[int, float]:
        """By replica."""
        return {index: sum(ages) / len(ages) for index, ages in self._seen.items()}
