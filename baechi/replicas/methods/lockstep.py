"""All workers of a method in one process: deterministic, exact in bytes, and resumable between steps."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor

from baechi.errors import BaechiError
from baechi.replicas.compress.base import Key
from baechi.replicas.methods.core import Gather, Mean, ProblemOracle, Request, Swap, Worker
from baechi.replicas.methods.descent import Descent
from baechi.replicas.methods.hostile import Hostile
from baechi.replicas.problems.base import Problem

__all__ = ["Costs", "Lockstep", "sizes_of", "wire_nbytes"]


@dataclass(frozen=True, slots=True)
class Costs:
    """How long things take, for a virtual clock; a simple model, and the same for all methods.

    A step costs `step_seconds`, and a Hessian-vector product twice that. A message costs `latency` and what one
    worker's busiest wire carries: twice its bytes for a mean (ring all-reduce, or up to a server and down
    again), everybody's for a gather, its own to each peer for a swap.

    Attributes:
        step_seconds: of one local gradient.
        bytes_per_second: of a worker's wire.
        latency: of a message, seconds.
    """

    step_seconds: float = 0.01
    bytes_per_second: float = 12.5e6
    latency: float = 0.0

    def __post_init__(self) -> None:
        if not (self.step_seconds >= 0 and self.bytes_per_second > 0 and self.latency >= 0):
            what = f"{self.step_seconds:g} s a step, {self.bytes_per_second:g} bytes/s, {self.latency:g} s latency"
            raise BaechiError("B833", f"the cost model has {what}", help="at least 0, more than 0 and at least 0")

    def seconds(self, request: Request, workers: int) -> float:
        """Of one request."""
        times = {Mean: 2, Gather: workers}.get(type(request)) or len(getattr(request, "peers", ()))
        return self.latency + times * request.tensor.nbytes / self.bytes_per_second


class Lockstep:
    """Every worker takes a step, up to its next request; all are answered; and so on to the step's end.

    Args:
        method: what they do.
        problem: has data for at least so many workers.
        workers: how many.
        seed: of the start and of all that the method draws.
        costs: for `seconds`.
        hostile: the workers that attack; None is nobody.

    Raises:
        BaechiError: B832 when the problem has data for fewer workers, B824 when none of them is honest.

    Example:
        >>> from baechi.replicas.methods import method
        >>> from baechi.replicas.problems import problem
        >>> run = Lockstep(method("local-sgd", h=4), problem("quadratic", workers=3, size=5), workers=3)
        >>> for _ in range(8):
        ...     run.step()
        >>> run.t, run.sent  # two means of 5 doubles
        (8, [80, 80, 80])
    """

    def __init__(
        self,
        method: Descent,
        problem: Problem,
        workers: int,
        seed: int = 0,
        costs: Costs | None = None,
        hostile: Hostile | None = None,
    ) -> None:
        if not 1 <= workers <= problem.workers:
            raise BaechiError("B832", f"{workers} workers, and problem '{problem.name}' has data for {problem.workers}")
        if hostile is not None and hostile.count >= workers:
            raise BaechiError("B824", f"{hostile.count} hostile workers of {workers}", help="at least one is honest")
        self.problem, self.costs, self.hostile, self.seed = problem, costs or Costs(), hostile, seed
        self._honest = workers - (hostile.count if hostile is not None else 0)
        start, sizes = problem.start(seed), sizes_of(problem)
        self.workers: list[Worker] = [method.worker(i, workers, start, seed, sizes) for i in range(workers)]
        self.t, self.seconds, self.sent = 0, 0.0, [0] * workers

    def step(self) -> None:
        """Each worker's next step."""
        flips = self.hostile is not None and self.hostile.flips
        oracles = [
            ProblemOracle(self.problem, i, self.t, flipped=flips and i >= self._honest)
            for i in range(len(self.workers))
        ]
        steps = [worker.step(self.t, oracle) for worker, oracle in zip(self.workers, oracles, strict=True)]
        answers: list[Any] = [None] * len(steps)
        for round in count():
            asked = [_next(step, answer) for step, answer in zip(steps, answers, strict=True)]
            if all(request is None for request in asked):
                break
            answers = self._answer(asked, round)
        self.t += 1
        self.seconds += self.costs.step_seconds * max(oracle.gradients for oracle in oracles)

    def model(self) -> Tensor:
        """The mean of the honest workers' models, (d,)."""
        return torch.stack([worker.model for worker in self.workers[: self._honest]]).mean(0)

    def save(self) -> bytes:
        """All that changes, between two steps."""
        return pickle.dumps((self.workers, self.t, self.seconds, self.sent))

    def load(self, state: bytes) -> None:
        """Go on from what `save` gave for the same method and problem: bit for bit as if there had been no break.

        Args:
            state: from a source that is trusted as this program is: it is a pickle.
        """
        self.workers, self.t, self.seconds, self.sent = pickle.loads(state)

    def _answer(self, asked: Sequence[Request | None], round: int) -> list[Tensor]:
        requests = [request for request in asked if request is not None]
        kind = type(requests[0])
        if len(requests) < len(asked) or any(type(request) is not kind for request in requests):
            raise BaechiError("B834", f"in step {self.t} the workers ask for different things")
        if self.hostile is not None:
            requests = self.hostile.send(requests, Key(self.seed, self.t, round))
        for i, request in enumerate(requests):
            self.sent[i] += wire_nbytes(request)
        self.seconds += max(self.costs.seconds(request, len(requests)) for request in requests)
        if isinstance(requests[0], Swap):
            return [_rows_for(request, requests) for request in requests if isinstance(request, Swap)]
        active = [request for request in requests if getattr(request, "active", True)]
        if not active:
            raise BaechiError("B834", f"in step {self.t} no worker takes part")
        rows, made = torch.stack([request.tensor for request in active]), getattr(active[0], "made", None)
        return [_mean(rows, active) if kind is Mean else made(rows) if made else rows] * len(requests)


def wire_nbytes(request: Request) -> int:
    """Bytes that the worker that asks puts on the wire: its tensor, once, or once for each peer."""
    if isinstance(request, Swap):
        return len(request.peers) * request.tensor.nbytes
    return request.tensor.nbytes if request.active else 0


def sizes_of(problem: Problem) -> tuple[int, ...]:
    """Elements of each tensor in a problem's vector; one tensor where it does not tell."""
    shapes = getattr(problem, "shapes", None) or ((problem.size,),)
    return tuple(int(torch.Size(shape).numel()) for shape in shapes)


def _mean(rows: Tensor, active: Sequence[Request]) -> Tensor:
    """The mean of rows; those that have equal weights are not multiplied, so that rounding is that of the plain one."""
    weights = [getattr(request, "weight", None) or 1.0 for request in active]
    if weights.count(weights[0]) == len(weights):
        return rows.mean(0)
    shares = torch.tensor(weights, dtype=torch.float64, device=rows.device) / sum(weights)
    return torch.einsum("w,w...->...", shares.to(rows.dtype), rows)


def _rows_for(request: Swap, requests: Sequence[Request]) -> Tensor:
    if not request.peers:
        return request.tensor.new_empty((0, *request.tensor.shape))
    return torch.stack([requests[j].tensor for j in request.peers])


def _next(step: Any, answer: Any) -> Request | None:
    try:
        request: Request = step.send(answer)
    except StopIteration:
        return None
    return request
