"""What a peer holds, whatever it tells others: a model, its weight in push-sum, and whose updates it reflects.

Push-sum: Assran et al., "Stochastic Gradient Push" (arXiv:1811.10792).
"""

from baechi.replicas.guard import Guard
from baechi.replicas.peer import Arrays, Change, Snapshot, plus

__all__ = ["Holder"]

_MEMORY = 0.005  # of the mean weight in push-sum: of so many of the last updates


class Holder:
    """A peer's model.

    Its arrays are never written: a change makes new ones, so a snapshot is a reference, and a thread that reads one
    sees no half of an update.

    Args:
        peer: which one it is.
        arrays: its model at the start.
        guard: of what comes.
        incarnation: one more after each restart.
        joining: whether it waits for another's model.

    Attributes:
        version: how many updates of its own the model reflects.
        reflects: by peer, how many of its updates.
    """

    def __init__(self, peer: int, arrays: Arrays, guard: Guard, incarnation: int, joining: bool) -> None:
        self.peer, self.guard, self.incarnation, self.joining = peer, guard, incarnation, joining
        self.version = 0
        self.reflects: dict[int, int] = {peer: 0}
        self._model, self._weight, self._typical = arrays, 1.0, 1.0
        self._serial = 0

    @property
    def arrays(self) -> Arrays:
        """The model now."""
        if self._weight == 1.0:
            return self._model
        return tuple((a / self._weight).astype(a.dtype, copy=False) for a in self._model)

    def _learn(self) -> None:
        self.version += 1
        self.reflects[self.peer] = self.version

    def _share(self) -> float:
        """What an update counts in push-sum's sums: the weight, over what it is on average, so that all peers count alike.

        The weight alone would count those more whom more links lead to; a whole update, as in synchronous push-sum,
        would throw a peer far off whose weight is small at the moment.
        """
        self._typical += (self._weight - self._typical) * max(1 / (self.version + 1), _MEMORY)
        return self._weight / self._typical

    def _add(self, change: Change, weight: float = 0.0) -> None:
        self._model, self._weight = plus(self._model, change), self._weight + weight

    def _snapshot(self, arrays: Arrays, now: float, weight: float = 1.0) -> Snapshot:
        """Something to send; each is another message."""
        self._serial += 1
        known = dict(self.reflects)
        return Snapshot(self.peer, self.incarnation, self.version, self._serial, arrays, known, weight, now)

    def _witness(self, snapshot: Snapshot) -> None:
        for peer, version in snapshot.reflects.items():
            if version > self.reflects.get(peer, 0):
                self.reflects[peer] = version
