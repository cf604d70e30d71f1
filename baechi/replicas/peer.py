"""What the asynchronous algorithms are made of: a peer is a state machine, and whoever carries it has the time and the wires.

A carrier calls `Peer.learned` after local steps, `Peer.tick` when the mixing clock rings, `Peer.receive` for each
message, and `Peer.delivered` or `Peer.lost` for each that no answer came to; it delivers what these return. The simulator does so under a
virtual clock (`baechi.replicas.events`), Ray under the real one (`baechi.replicas.cluster`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Arrays", "Change", "Envelope", "Message", "Peer", "Snapshot", "norm", "plus"]

Arrays: TypeAlias = tuple[NDArray[np.floating[Any]], ...]
"""A model: a tuple of arrays, one for each tensor or for each device's share. Shapes never change."""

Change: TypeAlias = Sequence[NDArray[Any]]
"""What is added to a model: an array for each of its."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A model as it was at one moment; nobody changes it.

    Attributes:
        peer: whose.
        incarnation: which life of the peer: one more after each restart.
        version: how many updates of its own the model reflects.
        serial: one more for each message of this life: a message never comes twice.
        arrays: the model.
        reflects: by peer, how many of its updates the model reflects: a version vector.
        weight: of the model in push-sum; 1 elsewhere.
        sent: when it was sent, in seconds of the carrier's clock.
    """

    peer: int
    incarnation: int
    version: int
    serial: int
    arrays: Arrays
    reflects: Mapping[int, int]
    weight: float = 1.0
    sent: float = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of the model."""
        return sum(a.nbytes for a in self.arrays)


class Message(NamedTuple):
    """What one peer tells another.

    Attributes:
        kind: `ask` for a snapshot, `give` one that was asked for, `push` one that was not, or `swap`, which gives one
            and asks for one.
        sender: who says it.
        snapshot: None when asking.
    """

    kind: str
    sender: int
    snapshot: Snapshot | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the model in it."""
        return 0 if self.snapshot is None else self.snapshot.nbytes


class Envelope(NamedTuple):
    """A message and whom it is for."""

    to: int
    message: Message


class Peer(Protocol):
    """One replica's part of an asynchronous algorithm."""

    @property
    def arrays(self) -> Arrays:
        """Its model now; read it, and do not write."""

    def learned(self, arrays: Arrays, since: Arrays, now: float) -> Sequence[Envelope]:
        """Local steps took the model from `since`, which was `arrays` of this peer at some moment, to `arrays`.

        What was mixed in meanwhile stays; when nothing was, the model is `arrays` exactly.
        """

    def tick(self, now: float, random: Random) -> Sequence[Envelope]:
        """The mixing clock rang: what to send."""

    def receive(self, message: Message, now: float) -> Message | None:
        """A message came: what to answer its sender, if anything.

        A message that does not hold is refused: nothing changes but a count.
        """

    def delivered(self, to: int, now: float) -> None:
        """A message came through, and there is no answer to it."""

    def lost(self, to: int, now: float) -> None:
        """A message to a peer did not come through or was not answered in time, or the peer is gone."""


def norm(arrays: Sequence[NDArray[np.floating[Any]]]) -> float:
    """The Euclidean norm of a model as one vector.

    Example:
        >>> norm((np.array([3.0]), np.array([[4.0]])))
        5.0
    """
    return math.sqrt(sum(float(np.vdot(a, a)) for a in arrays))


def plus(arrays: Arrays, change: Change) -> Arrays:
    """A model and a change of it, in the model's types.

    Example:
        >>> plus((np.array([3.0]),), (np.array([0.5]),))
        (array([3.5]),)
    """
    return tuple(np.add(a, c, dtype=a.dtype) for a, c in zip(arrays, change, strict=True))
