"""Asynchronous SGD on a quadratic, event by event: what the theory of stale gradients is held against.

A worker reads the model, computes for a while, and its gradient is applied to whatever the model is by then.
"""

import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from baechi.cost.jit import kernel
from baechi.errors import BaechiError
from baechi.replicas.delays import Delay

__all__ = ["Race", "asgd", "growth", "race", "run_limit"]

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

_BLOCK = 32
_TINY = 1e-290
_UPDATES = 20_000
_HALVINGS = 12
_BELOW = 0.997  # at a gain of exactly 1 an update by whoever made the last one ends it: no sign of its neighbours


class Race(NamedTuple):
    """Who updates when; it does not depend on what is computed.

    Attributes:
        seconds: (updates,) when each update is applied.
        worker: (updates,) who made it.
        read: (updates,) after how many updates its worker read the model.
    """

    seconds: Floats
    worker: Ints
    read: Ints

    @property
    def staleness(self) -> Ints:
        """(updates,) updates by others between reading and applying: its mean is workers - 1."""
        return np.arange(len(self.read)) - self.read


def race(laws: Sequence[Delay], updates: int, seed: int = 0) -> Race:
    """Let workers compute without waiting for each other.

    Args:
        laws: of each worker's compute time; they begin in the middle of a computation, each at its own place.
        updates: how many.
        seed: of the times.

    Raises:
        BaechiError: B852 without workers or updates.

    Example:
        >>> from baechi.replicas.delays import fixed
        >>> set(race([fixed(1.0)] * 4, 100).staleness[4:].tolist())
        {3}
    """
    if not laws or updates < 1:
        raise BaechiError("B852", f"{len(laws)} workers and {updates} updates are no race", help="at least 1 of each")
    random = np.random.default_rng(seed)
    first = [float(law.draw(1, random)[0]) * random.random() for law in laws]
    queue = [(at, worker) for worker, at in enumerate(first)]
    heapq.heapify(queue)
    stock: list[list[float]] = [[] for _ in laws]
    read = np.zeros(len(laws), np.int64)
    found = Race(np.empty(updates), np.empty(updates, np.int64), np.empty(updates, np.int64))
    for k in range(updates):
        at, worker = queue[0]
        found.seconds[k], found.worker[k], found.read[k] = at, worker, read[worker]
        read[worker] = k + 1
        if not stock[worker]:
            stock[worker] = laws[worker].draw(256, random).tolist()
        heapq.heapreplace(queue, (at + stock[worker].pop(), worker))
    return found


def asgd(
    curvature: Sequence[float],
    step_size: float,
    found: Race,
    *,
    start: Sequence[float] | None = None,
    noise: float = 0.0,
    seed: int = 0,
) -> Floats:
    """Run SGD on ``sum h x^2 / 2`` with the gradients as stale as a race makes them.

    Args:
        curvature: (d,) h of each direction.
        step_size: what a gradient is multiplied by.
        found: who updates when.
        start: (d,) the model at first; ones when None.
        noise: standard deviation of each gradient's error, in each direction.
        seed: of the noise.

    Returns:
        (updates + 1, d) the model after each update.
    """
    h = np.asarray(curvature, np.float64)
    random = np.random.default_rng(seed)
    x = np.empty((len(found.read) + 1, len(h)))
    x[0] = 1.0 if start is None else start
    errors = noise * random.standard_normal((len(found.read), len(h))) if noise else np.zeros((len(found.read), 1))
    for k, read in enumerate(found.read):
        x[k + 1] = x[k] - step_size * (h * x[read] + errors[k])
    return x


def growth(found: Race, gain: float) -> float:
    """By which rate the distance grows in such a run, in 1/s: the mean over its second half; below 0 it decays.

    Args:
        found: who updates when.
        gain: step size times curvature.
    """
    return _growth(found.seconds, found.worker, int(found.worker.max()) + 1, gain)


@kernel
def _growth(seconds: Floats, worker: Ints, workers: int, gain: float) -> float:
    held, x, total, half = np.ones(workers), 1.0, 0.0, 0.0
    middle = len(worker) // 2 // _BLOCK * _BLOCK
    for k in range(len(worker) + 1):
        if k % _BLOCK == 0 or k == len(worker):
            scale = max(abs(x), np.abs(held).max()) + _TINY
            total += math.log(scale)
            x /= scale
            held /= scale
        if k == middle:
            half = total
        if k < len(worker):
            x -= gain * held[worker[k]]
            held[worker[k]] = x
    return float((total - half) / (seconds[-1] - seconds[middle]))


def run_limit(law: Delay, workers: int, most: float, seed: int = 0) -> float:
    """The step size times curvature from which on a single run diverges, found by running; within about 2 %.

    The mean of many runs may converge there, or diverge earlier.

    Args:
        law: of each worker's compute time.
        workers: how many.
        most: where a limit above this is of no interest: then it is the answer.
        seed: of the times.
    """
    found = race([law] * workers, max(_UPDATES, 50 * workers), seed)
    low, high = 0.0, _BELOW * most
    if growth(found, high) < 0:
        return most
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if growth(found, middle) < 0 else (low, middle)
    return (low + high) / 2
