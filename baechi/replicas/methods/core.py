"""What a synchronous method is made of: workers that ask one another for things, and whoever carries that.

A worker's `step` is a generator, and reads like the paper: where the paper has a mean over workers it yields `Mean`
and is sent the answer. `drive` runs it over a `Collective`, one process for each worker; `Lockstep` runs all workers
in one process. Answers are shared: a worker copies what it keeps.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from torch import Tensor

from baechi.replicas.compress.base import Key

if TYPE_CHECKING:
    from baechi.replicas.problems.base import Problem

__all__ = [
    "Collective",
    "Gather",
    "Mean",
    "Oracle",
    "ProblemOracle",
    "Request",
    "Runner",
    "Step",
    "Swap",
    "Worker",
    "drive",
]


@dataclass(frozen=True, slots=True, eq=False)
class Mean:
    """Asks for the mean of the workers' tensors.

    Attributes:
        tensor: of this worker; all have the same shape and type.
        active: whether it takes part; one that does not is answered all the same.
        weight: of this worker in a weighted mean, more than 0; None on all where all count alike.
    """

    tensor: Tensor
    active: bool = True
    weight: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Gather:
    """Asks for all workers' tensors as rows, (workers that take part, elements), or for what is made of them.

    Attributes:
        tensor: as `Mean`.
        active: as `Mean`.
        made: what to make of the rows, the same on all workers, so that one process does it once; None: the rows.
    """

    tensor: Tensor
    active: bool = True
    made: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Swap:
    """Gives a tensor to some peers, and asks for theirs as rows, in the order of `peers`.

    Attributes:
        tensor: of this worker.
        peers: who; whoever is a peer of mine has me as one.
    """

    tensor: Tensor
    peers: tuple[int, ...]


Request: TypeAlias = Mean | Gather | Swap
Step: TypeAlias = Generator[Request, Tensor, None]
"""A worker's step: yields requests, is sent answers."""


class Oracle(Protocol):
    """A worker's own data at one step."""

    @property
    def examples(self) -> int:
        """How many the worker has; n_k of the federated methods."""

    def gradient(self, x: Tensor) -> Tensor:
        """At x, (d,)."""

    def curvature(self, x: Tensor, v: Tensor) -> Tensor:
        """The Hessian at x times v, on the same examples, (d,)."""


class Collective(Protocol):
    """Workers that answer one another, each in its own process; as `baechi.replicas.methods.distributed` does."""

    def mean(self, tensor: Tensor, active: bool = True, weight: float | None = None) -> Tensor:
        """As `Mean` asks."""

    def gather(self, tensor: Tensor, active: bool = True) -> Tensor:
        """As `Gather` asks."""

    def swap(self, tensor: Tensor, peers: Sequence[int]) -> Tensor:
        """As `Swap` asks."""


@dataclass(slots=True, kw_only=True, eq=False)
class Worker:
    """The state of one worker between steps: what is here is all there is, and can be pickled.

    Attributes:
        index: its number.
        count: of workers.
        seed: of what is drawn; the same on all workers.
        sizes: of the tensors in the flat vector.
        first: the number of the first of them in the model, when this is one shard of it: choices are by tensor, so
            that shards choose as the whole would.
        x: its model, (d,); changed in place.
    """

    index: int
    count: int
    seed: int
    sizes: tuple[int, ...]
    x: Tensor
    first: int = 0
    m: Tensor | None = field(default=None)
    """The momentum buffer; made at the first step that needs one."""

    @property
    def model(self) -> Tensor:
        """What is evaluated; of several workers, the mean."""
        return self.x

    def key(self, t: int, use: int = 0) -> Key:
        """Of what is drawn in step t."""
        return Key(self.seed, t, use, self.first, self.index)

    def step(self, t: int, oracle: Oracle) -> Step:
        """Step t, from 0: local computing, and what it asks of others."""
        raise NotImplementedError


class Runner(Protocol):
    """A method that runs: the synchronous ones in lockstep, the asynchronous one on its own simulator."""

    t: int
    """Steps done."""

    sent: list[int]
    """By worker, bytes that it has put on the wire."""

    seconds: float
    """Of a virtual clock, when there is a cost model."""

    def step(self) -> None:
        """Each worker's next local step."""

    def model(self) -> Tensor:
        """What is evaluated, (d,)."""


def drive(step: Step, collective: Collective) -> None:
    """Run a worker's step to its end over real wires.

    Args:
        step: of this process's worker.
        collective: answers.
    """
    answer: Any = None
    while True:
        try:
            request = step.send(answer)
        except StopIteration:
            return
        if isinstance(request, Mean):
            answer = collective.mean(request.tensor, request.active, request.weight)
        elif isinstance(request, Gather):
            rows = collective.gather(request.tensor, request.active)
            answer = rows if request.made is None else request.made(rows)
        else:
            answer = collective.swap(request.tensor, request.peers)


@dataclass(slots=True)
class ProblemOracle:
    """A problem seen by one worker at one step; counts what it is asked.

    Attributes:
        problem: whose gradients.
        worker: whose data.
        t: the step.
        gradients: computed, each of the cost of one; a Hessian-vector product counts twice.
        flipped: whether the labels are false.
    """

    problem: "Problem"
    worker: int
    t: int
    gradients: int = 0
    flipped: bool = False

    @property
    def examples(self) -> int:
        """As `Oracle`."""
        return self.problem.examples(self.worker)

    def gradient(self, x: Tensor) -> Tensor:
        """As `Oracle`."""
        self.gradients += 1
        return self.problem.gradient(x, self.worker, self.t, flipped=self.flipped)[1]

    def curvature(self, x: Tensor, v: Tensor) -> Tensor:
        """As `Oracle`."""
        self.gradients += 2
        return self.problem.curvature(x, v, self.worker, self.t)
