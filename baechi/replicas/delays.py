"""How long a gradient is under way: laws of a delay, by their Laplace transform.

The transform ``E[exp(-s D)]`` is all that the theory of stale gradients asks of a delay (`baechi.replicas.staleness`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from baechi.document import Entry, load_json
from baechi.errors import BaechiError
from baechi.replicas.clocks import Distribution, parse_distribution

__all__ = ["Delay", "Erlang", "Histogram", "fixed", "law_of", "parse_delay", "read_delays"]

Complexes: TypeAlias = NDArray[np.complexfloating[Any, Any]]

_ATOMS = 128


class Delay(Protocol):
    """The law of a delay of at least 0 seconds; equal laws have equal hashes.

    Attributes:
        mean: in seconds.
        longest: seconds that hold nearly all of it: the transform swings along the imaginary axis at this rate.
        slowest: the transform is finite where the real part of its argument is above this, in 1/s.
    """

    @property
    def mean(self) -> float: ...
    @property
    def longest(self) -> float: ...
    @property
    def slowest(self) -> float: ...

    def __hash__(self) -> int: ...

    def transform(self, s: Complexes) -> Complexes:
        """``E[exp(-s D)]`` for arguments in 1/s."""

    def derivative(self, s: Complexes) -> Complexes:
        """``-E[D exp(-s D)]``."""

    def draw(self, count: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Some delays, in seconds."""


@dataclass(frozen=True, slots=True)
class Erlang:
    """The sum of `shape` exponential delays, after a fixed part: shape 1 is the exponential law.

    Args:
        shape: how many.
        scale: mean of their sum, in seconds.
        offset: the fixed part, in seconds.

    Raises:
        BaechiError: B850 when these make no law of a delay.

    Example:
        >>> law = Erlang(1, 2.0)
        >>> law.mean, complex(law.transform(np.array(0.5 + 0j)))
        (2.0, (0.5+0j))
    """

    shape: int
    scale: float
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not (self.shape >= 1 and 0 < self.scale < math.inf and 0 <= self.offset < math.inf):
            what = f"shape {self.shape}, mean {self.scale} and offset {self.offset} make no delay"
            raise BaechiError(
                "B850", what, help="a shape from 1 on, a mean above 0, an offset of at least 0, in seconds"
            )

    @property
    def mean(self) -> float:
        return self.offset + self.scale

    @property
    def longest(self) -> float:
        return self.offset + self.scale * (1 + 8 / math.sqrt(self.shape))

    @property
    def slowest(self) -> float:
        return -self.shape / self.scale

    def transform(self, s: Complexes) -> Complexes:
        found: Complexes = np.exp(-s * self.offset) * (1 + s * self.scale / self.shape) ** -self.shape
        return found

    def derivative(self, s: Complexes) -> Complexes:
        found: Complexes = -self.transform(s) * (self.offset + self.scale / (1 + s * self.scale / self.shape))
        return found

    def draw(self, count: int, random: np.random.Generator) -> NDArray[np.float64]:
        return self.offset + random.gamma(self.shape, self.scale / self.shape, count)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Delays as they were measured, each with its share; of one delay, the fixed law.

    Args:
        seconds: the delays.
        shares: of each, in any unit; equal when empty.

    Raises:
        BaechiError: B850 when these make no law of a delay.

    Example:
        >>> Histogram((1.0, 3.0), (3, 1)).mean
        1.5
    """

    seconds: tuple[float, ...]
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        times, shares = np.array(self.seconds, np.float64), np.array(self.shares or (1.0,) * len(self.seconds))
        if len(times) == 0 or len(shares) != len(times):
            raise BaechiError(
                "B850", f"{len(times)} delays with {len(shares)} shares", help="give each delay its share"
            )
        if not (np.isfinite(times).all() and times.min() >= 0 and times.max() > 0):
            raise BaechiError("B850", "a delay is below 0 or no number, or all are 0", help="delays are in seconds")
        if not (np.isfinite(shares).all() and shares.min() >= 0 and (shares * times).sum() > 0):
            raise BaechiError("B850", "a share is below 0 or no number, or all are 0", help="shares are at least 0")

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Histogram":
        """The law of many measured delays; more than 128 are put together by rank, with their mean kept."""
        times, counts = np.unique(np.asarray(seconds, np.float64), return_counts=True)
        if len(times) <= _ATOMS:
            return cls(tuple(times.tolist()), tuple(counts.astype(np.float64).tolist()))
        parts = np.array_split(np.sort(np.asarray(seconds, np.float64)), _ATOMS)
        return cls(tuple(float(p.mean()) for p in parts), tuple(float(len(p)) for p in parts))

    @property
    def mean(self) -> float:
        return float(self._shares @ np.array(self.seconds))

    @property
    def longest(self) -> float:
        return max(self.seconds)

    @property
    def slowest(self) -> float:
        return -math.inf

    @property
    def is_fixed(self) -> bool:
        """Whether there is but one delay."""
        return len({t for t, share in zip(self.seconds, self._shares, strict=True) if share > 0}) == 1

    def transform(self, s: Complexes) -> Complexes:
        return self._sum(np.asarray(s), self._shares)

    def derivative(self, s: Complexes) -> Complexes:
        return self._sum(np.asarray(s), -self._shares * np.array(self.seconds))

    def draw(self, count: int, random: np.random.Generator) -> NDArray[np.float64]:
        return random.choice(np.array(self.seconds), count, p=self._shares)

    @property
    def _shares(self) -> NDArray[np.float64]:
        shares = np.array(self.shares or (1.0,) * len(self.seconds), np.float64)
        found: NDArray[np.float64] = shares / shares.sum()
        return found

    def _sum(self, s: Complexes, factors: NDArray[np.float64]) -> Complexes:
        found: Complexes = np.exp(-s[..., None] * np.array(self.seconds)) @ factors.astype(np.complex128)
        return found


def fixed(seconds: float) -> Histogram:
    """The delay that is always the same; errors as `Histogram`."""
    return Histogram((float(seconds),))


def law_of(times: Distribution) -> Delay:
    """The law of a distribution of times.

    Raises:
        BaechiError: B850 when they are all 0.

    Example:
        >>> law_of(Distribution(spread=2.0, offset=0.5))
        Erlang(shape=1, scale=2.0, offset=0.5)
    """
    if times.spread == 0:
        return fixed(times.offset)
    if times.law == "histogram":
        return Histogram(tuple(times.offset + v for v in times.values), times.weights)
    if times.law == "lognormal":
        ranks = (np.arange(_ATOMS) + 0.5) / _ATOMS
        raw = np.exp(times.shape * np.array([NormalDist().inv_cdf(rank) for rank in ranks]))
        return Histogram(tuple((times.offset + times.spread * raw / raw.mean()).tolist()))
    return Erlang(int(times.shape), times.spread, times.offset)


def parse_delay(text: str) -> Delay:
    """Read a law: ``fixed:1.0``, what `parse_distribution` reads, such as ``exp:1.0`` or ``erlang:4:1.0``, or a file.

    Args:
        text: in seconds; a name that ends in ``.json`` is a file as for `read_delays`.

    Raises:
        BaechiError: B840 when it is none of these; B850 and as `read_delays` on bad numbers.

    Example:
        >>> parse_delay("erlang:4:0.1")
        Erlang(shape=4, scale=0.1, offset=0.0)
    """
    if text.endswith(".json"):
        return read_delays(text)
    return law_of(parse_distribution(text.removeprefix("fixed:")))


def read_delays(path: str) -> Histogram:
    """The delays of a file: its ``delays_seconds``, or the step times of what `baechi profile -o` wrote.

    Raises:
        BaechiError: B851 when it cannot be read or has none; B850 when they make no law.
    """
    root = load_json(path, "B851", missing="B851", malformed="B851")
    found: Entry | None = root.find("delays_seconds")
    if found is None:
        steps = root.find("step_seconds")
        found = None if steps is None else steps.find("all")
    if found is None:
        raise root.error("there are no delays in it", help='it needs {"delays_seconds": […]}, or to be a profile')
    return Histogram.of([entry.number() for entry in found.items()])
