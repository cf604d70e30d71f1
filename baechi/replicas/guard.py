"""What a peer asks of a snapshot before it lets it near its model."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from baechi.replicas.peer import Arrays, Snapshot, norm

__all__ = ["REASONS", "Guard"]

_WINDOW = 64

REASONS = ("dropped", "shape", "not finite", "replayed", "stale", "too far", "too few")
"""Why a message has no effect: it did not come, its arrays are not like the receiver's, hold NaN or infinity, it came
before or is of an earlier life, its model misses too much of what the receiver learned, it is further from the
receiver's model than allowed, a rule has too few models yet."""


class _Window(NamedTuple):
    """Which of a peer's last messages came: two that overtake each other are both sound.

    Attributes:
        incarnation: the newest life of the peer.
        serial: of its newest message.
        bits: the lowest is for that one, the next for the one before it, and so on.
    """

    incarnation: int = -1
    serial: int = -1
    bits: int = 0

    def has(self, snapshot: Snapshot) -> bool:
        """Whether a message came before, or is too old to tell."""
        if snapshot.incarnation != self.incarnation:
            return snapshot.incarnation < self.incarnation
        behind = self.serial - snapshot.serial
        return behind >= _WINDOW or (behind >= 0 and bool(self.bits >> behind & 1))

    def with_one(self, snapshot: Snapshot) -> "_Window":
        """The same with a message more."""
        if snapshot.incarnation != self.incarnation:
            return _Window(snapshot.incarnation, snapshot.serial, 1)
        ahead = snapshot.serial - self.serial
        if ahead <= 0:
            return self._replace(bits=self.bits | 1 << -ahead)
        bits = (self.bits << ahead | 1) & ((1 << _WINDOW) - 1) if ahead < _WINDOW else 1
        return _Window(self.incarnation, snapshot.serial, bits)


@dataclass
class Guard:
    """Refuses what a sound peer would not send, and counts it; never what merely came late.

    Args:
        shapes, kinds: of the receiver's own arrays; nothing on the wire says what to expect.
        max_staleness: how many of the receiver's updates a snapshot may miss; None for any number.
        max_distance: between the models, as a multiple of the norm of the receiver's; None for any.

    Attributes:
        refused: how many snapshots, by reason of `REASONS`.
        by_peer: the same for each sender.

    Example:
        >>> guard = Guard.of((np.zeros(2),))
        >>> good = Snapshot(1, 0, 1, 1, (np.ones(2),), {1: 1})
        >>> guard.refuse(good, (np.zeros(2),), 0, 0), guard.refuse(good, (np.zeros(2),), 0, 0)
        (None, 'replayed')
    """

    shapes: tuple[tuple[int, ...], ...]
    kinds: tuple[str, ...]
    max_staleness: int | None = None
    max_distance: float | None = None
    refused: Counter[str] = field(default_factory=Counter)
    by_peer: dict[int, Counter[str]] = field(default_factory=dict)
    _seen: dict[int, "_Window"] = field(default_factory=dict)

    @classmethod
    def of(cls, arrays: Arrays, *, max_staleness: int | None = None, max_distance: float | None = None) -> "Guard":
        """A guard of a model."""
        shapes, kinds = tuple(a.shape for a in arrays), tuple(a.dtype.str for a in arrays)
        return cls(shapes, kinds, max_staleness, max_distance)

    def refuse(self, snapshot: Snapshot, own: Arrays, peer: int, version: int) -> str | None:
        """Why a snapshot is refused, or None; what was seen once is a replay from then on.

        Args:
            snapshot: what came.
            own: the receiver's model.
            peer: the receiver.
            version: how many updates of its own the receiver's model has.
        """
        why = self._fault(snapshot, own, peer, version)
        if why is None:
            self._seen[snapshot.peer] = self._seen.get(snapshot.peer, _Window()).with_one(snapshot)
        else:
            self.count(snapshot.peer, why)
        return why

    def count(self, sender: int, why: str) -> None:
        """Note a message that had no effect."""
        self.refused[why] += 1
        self.by_peer.setdefault(sender, Counter())[why] += 1

    def _fault(self, snapshot: Snapshot, own: Arrays, peer: int, version: int) -> str | None:
        if self._seen.get(snapshot.peer, _Window()).has(snapshot):
            return "replayed"
        arrays = snapshot.arrays
        alike = len(arrays) == len(self.shapes) and all(
            isinstance(a, np.ndarray) and a.shape == shape and a.dtype.str == kind
            for a, shape, kind in zip(arrays, self.shapes, self.kinds, strict=True)
        )
        if not alike:
            return "shape"
        if not (0 < snapshot.weight < np.inf and all(_is_finite(a) for a in arrays)):
            return "not finite"
        if self.max_staleness is not None and version - snapshot.reflects.get(peer, 0) > self.max_staleness:
            return "stale"
        if self.max_distance is not None and _distance(arrays, own, snapshot.weight) > self.max_distance * norm(own):
            return "too far"
        return None


def _is_finite(array: np.ndarray) -> bool:
    """One pass without a copy: a sum is finite when all are, and looked at closer when it is not."""
    return bool(np.isfinite(array.sum())) or bool(np.isfinite(array).all())


def _distance(arrays: Arrays, own: Arrays, weight: float) -> float:
    return norm([a / weight - b if weight != 1 else a - b for a, b in zip(arrays, own, strict=True)])
