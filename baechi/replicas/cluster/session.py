"""What a training script sees of its replica: it joins, says when a step is done, and goes on from a checkpoint."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from baechi.errors import BaechiError
from baechi.replicas.cluster.checkpoints import Checkpoints
from baechi.replicas.peer import Arrays

if TYPE_CHECKING:
    import torch

    from baechi.replicas.cluster.hub import HubOptions
    from baechi.replicas.cluster.rounds import Place, Rounds

__all__ = ["Hand", "Replica", "Session", "enter", "join", "present"]

_T = TypeVar("_T")


class Hand(Protocol):
    """Where a worker hands in what it learned: the hub of its replica, here or in another process."""

    def enter(self, rank: int, arrays: Arrays) -> Arrays | None:
        """As `Hub.enter`."""

    def boundary(self, rank: int, step: int, arrays: Arrays, loss: float | None) -> Arrays | None:
        """As `Hub.boundary`."""

    def put_on_wire(self, nbytes: int) -> None:
        """As `Hub.put_on_wire`."""


@dataclass(frozen=True, slots=True)
class Session:
    """A worker's place in a run.

    Attributes:
        index: of its replica.
        count: of replicas at the start.
        rank: of the worker in its replica.
        shares: workers of a replica.
        hub: of the replica; None when the script runs alone.
        every: steps from one update, which others see, to the next.
        buffers: whether floating-point buffers are mixed.
        checkpoint: directory of this replica's checkpoints; none when empty.
        checkpoint_every: steps from one to the next.
        resume: whether to go on from the newest one.
        method: by which the replicas train together instead of gossiping; None when they gossip.
        options: of the hub.
    """

    index: int = 0
    count: int = 1
    rank: int = 0
    shares: int = 1
    hub: Hand | None = None
    every: int = 1
    buffers: bool = False
    checkpoint: str = ""
    checkpoint_every: int = 100
    resume: bool = False
    method: "Place | None" = None
    options: "HubOptions | None" = None


_SESSION = Session()


def enter(session: Session) -> None:
    """From here on this process is a worker of a replica."""
    global _SESSION
    _SESSION = session


def present() -> Session:
    """The place that this process has; alone when it is no worker of a replica."""
    return _SESSION


def join(model: Any, optimizer: "torch.optim.Optimizer | None" = None) -> "Replica":
    """Make a model one of the replicas that train together.

    Under ``baechi replicas -n 4 -- train.py`` the model is mixed with those of the other replicas from here on, which
    takes the script one line more for each step. Without, the replica is alone and nothing changes.

    Args:
        model: a module, placed (`baechi.place`) or not; a placed step (``plan.apply(model)``); or this worker's
            share of one (``plan.worker(build)``).
        optimizer: to be kept in checkpoints with the model; its state is not mixed.

    Returns:
        The replica.

    Raises:
        BaechiError: B802 when the model has no weights, B803 when a late joiner finds nobody to take a model from,
            B804 when a checkpoint cannot be read.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), 0.1)
        >>> replica = join(model, optimizer)
        >>> for k in replica.steps(3):
        ...     loss = model(torch.ones(1, 2)).square().sum()
        ...     optimizer.zero_grad()
        ...     loss.backward()
        ...     optimizer.step()
        ...     replica.step(loss)
        >>> replica.done, replica.count
        (3, 1)
    """
    from baechi.replicas.cluster.weights import weights_of

    return Replica(_SESSION, weights_of(model, buffers=_SESSION.buffers), optimizer, _rounds(model, optimizer))


def _rounds(model: Any, optimizer: Any) -> "Rounds | None":
    """What makes the updates when the replicas train by a method."""
    if _SESSION.method is None:
        return None
    from baechi.replicas.cluster.rounds import Rounds

    return Rounds(_SESSION.method, model, optimizer)


class Replica:
    """A model among those that train together; `join` makes it.

    Attributes:
        done: steps that it has made, those before a checkpoint included.
    """

    def __init__(self, session: Session, weights: Any, optimizer: Any, rounds: "Rounds | None" = None) -> None:
        self._session, self._weights, self._optimizer, self._rounds = session, weights, optimizer, rounds
        self.done = 0
        if session.resume:
            self._resume()
        if session.hub is not None and (taught := session.hub.enter(session.rank, weights.read())) is not None:
            weights.write(taught)

    @property
    def index(self) -> int:
        """Which replica this is, from 0."""
        return self._session.index

    @property
    def count(self) -> int:
        """How many replicas there were at the start."""
        return self._session.count

    def steps(self, count: int) -> Iterator[int]:
        """The steps that are left of so many."""
        while self.done < count:
            yield self.done

    def part(self, samples: Sequence[_T]) -> Sequence[_T]:
        """This replica's part of all samples: every `count`-th; of a tensor too."""
        return samples[self.index % self.count :: self.count]

    def step(self, loss: Any = None) -> None:
        """Say that a step is done, the optimiser's update included; the model may change.

        Args:
            loss: of the step, a number or a tensor of one; None where this worker has none.
        """
        self.done += 1
        session = self._session
        if self._rounds is not None:
            sent = self._rounds.step()
            if session.hub is not None:
                session.hub.put_on_wire(sent)
        if session.hub is not None and self.done % session.every == 0:
            number = None if loss is None else float(loss.detach() if hasattr(loss, "detach") else loss)
            taught = session.hub.boundary(session.rank, self.done, self._weights.read(), number)
            if taught is not None:
                self._weights.write(taught)
        if session.checkpoint and self.done % session.checkpoint_every == 0:
            self._save()

    def _save(self) -> None:
        import torch

        state = {
            "names": self._weights.names,
            "weights": [torch.from_numpy(a) for a in self._weights.read()],
            "optimizer": self._optimizer.state_dict() if self._optimizer is not None else None,
            "random": torch.get_rng_state(),
            "done": self.done,
        }
        self._checkpoints().save(self.done, state)

    def _checkpoints(self) -> Checkpoints:
        session = self._session
        names = tuple(f"rank-{rank}.pt" for rank in range(session.shares))
        return Checkpoints(session.checkpoint, names[session.rank], names)

    def _resume(self) -> None:
        import torch

        kept = self._checkpoints()
        folder = kept.newest()
        if folder is None:
            return
        state = kept.load(folder)
        if tuple(state["names"]) != self._weights.names:
            raise BaechiError("B804", f"'{folder}' is of another model", help="give another --checkpoint directory")
        self._weights.write([w.numpy() for w in state["weights"]])
        if self._optimizer is not None and state["optimizer"] is not None:
            self._optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.done = state["done"]
