"""How long things take, as data: distributions with a text form, and the token bucket that limits a peer's rate."""

import math
import re
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from baechi.errors import BaechiError

__all__ = ["Distribution", "TokenBucket", "parse_distribution"]

Floats: TypeAlias = NDArray[np.float64]

_FORMS = (
    "write 0.5 (constant), exp:MEAN, erlang:K:MEAN, lognormal:MEAN:SIGMA or hist:VALUE=WEIGHT,VALUE=WEIGHT, "
    "with a constant before it as in 0.5+exp:1, and a factor as in 4*exp:1"
)

_SHAPE = re.compile(r"(?:(?P<factor>[^*:]+)\*)?(?:(?P<offset>[^*:]+)\+(?=[a-z]))?(?P<law>.+)")


@dataclass(frozen=True, slots=True)
class Distribution:
    """A time that is never negative: a fixed part and a random one.

    Attributes:
        law: of the random part: ``erlang`` (exponential when `shape` is 1), ``lognormal`` or ``histogram``.
        spread: its mean, in seconds; nothing is random when it is 0.
        offset: the fixed part, in seconds.
        shape: how many exponential stages an Erlang time has, or the standard deviation of a lognormal time's logarithm.
        values: of a histogram, in seconds.
        weights: of the values; they sum to 1.

    Example:
        >>> parse_distribution("0.5+exp:1.0").mean
        1.5
    """

    law: str = "erlang"
    spread: float = 0.0
    offset: float = 0.0
    shape: float = 1.0
    values: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        """In seconds."""
        return self.offset + self.spread

    @property
    def variance(self) -> float:
        """In seconds squared."""
        if self.law == "lognormal":
            return self.spread**2 * math.expm1(self.shape**2)
        if self.law == "histogram":
            return sum(w * (v - self.spread) ** 2 for v, w in zip(self.values, self.weights, strict=True))
        return self.spread**2 / self.shape

    def scaled(self, factor: float) -> "Distribution":
        """The times of something that is `factor` times as slow."""
        values = tuple(v * factor for v in self.values)
        return replace(self, spread=self.spread * factor, offset=self.offset * factor, values=values)

    def sample(self, rng: np.random.Generator) -> float:
        """One time, in seconds."""
        if self.spread == 0:
            return self.offset
        return float(self.offset + self._random(rng, None))

    def samples(self, rng: np.random.Generator, count: int) -> Floats:
        """(count,) independent times, in seconds."""
        if self.spread == 0:
            return np.full(count, self.offset)
        return np.asarray(self.offset + self._random(rng, count), np.float64)

    def _random(self, rng: np.random.Generator, size: int | None) -> Any:
        if self.law == "lognormal":
            return rng.lognormal(math.log(self.spread) - self.shape**2 / 2, self.shape, size)
        if self.law == "histogram":
            return rng.choice(self.values, size, p=self.weights)
        return rng.gamma(self.shape, self.spread / self.shape, size)

    def __str__(self) -> str:
        fixed = f"{self.offset!r}+" if self.offset else ""
        if self.spread == 0:
            return repr(self.offset)
        if self.law == "lognormal":
            return f"{fixed}lognormal:{self.spread!r}:{self.shape!r}"
        if self.law == "histogram":
            return f"{fixed}hist:" + ",".join(f"{v!r}={w!r}" for v, w in zip(self.values, self.weights, strict=True))
        return f"{fixed}exp:{self.spread!r}" if self.shape == 1 else f"{fixed}erlang:{self.shape:g}:{self.spread!r}"


def parse_distribution(text: str) -> Distribution:
    """Read a distribution of times in seconds; ``str`` of one is read back as the same.

    Args:
        text: ``0.5``, ``exp:1.0``, ``0.5+exp:1.0`` (shifted), ``erlang:4:1.0`` (4 stages, mean 1), ``lognormal:1.0:0.5``
            (mean, standard deviation of the logarithm), ``hist:0.1=3,0.5=1`` (values and their weights); a factor may
            stand before it, as in ``4*exp:1.0``.

    Raises:
        BaechiError: B840 on anything else, and on times below 0 or without end.

    Example:
        >>> str(parse_distribution("2*0.5+erlang:4:1.0"))
        '1.0+erlang:4:2.0'
    """
    match = _SHAPE.fullmatch("".join(text.split()))
    try:
        if match is None:
            raise ValueError(text)
        found, offset, factor = _law(match["law"]), _time(match["offset"] or "0"), _time(match["factor"] or "1")
    except (ValueError, ZeroDivisionError):
        raise BaechiError("B840", f"'{text}' is no distribution of times", help=_FORMS) from None
    return replace(found, offset=found.offset + offset).scaled(factor)


def _law(text: str) -> Distribution:
    name, _, rest = text.partition(":")
    if not rest:
        return Distribution(offset=_time(text))
    if name == "exp":
        return Distribution(spread=_time(rest))
    if name == "hist":
        return _histogram(rest)
    shape, mean = rest.split(":")
    if name == "erlang" and int(shape) >= 1:
        return Distribution(spread=_time(mean), shape=float(int(shape)))
    if name == "lognormal":
        return Distribution("lognormal", _time(shape), shape=_time(mean))
    raise ValueError(name)


def _histogram(text: str) -> Distribution:
    pairs = [part.partition("=") for part in text.split(",")]
    values = tuple(_time(value) for value, _, _ in pairs)
    heights = [_time(weight) for _, _, weight in pairs]
    total = sum(heights)
    weights = tuple(h / total for h in heights)
    mean = sum(v * w for v, w in zip(values, weights, strict=True))
    return Distribution("histogram", mean, values=values, weights=weights)


def _time(text: str) -> float:
    value = float(text)
    if not (0 <= value < math.inf):
        raise ValueError(text)
    return value


class TokenBucket:
    """A peer's capacity lambda: so many messages a second, and a few at once after a pause.

    Args:
        rate: tokens a second.
        depth: how many it holds; it begins full.

    Source: the constraint on the mixing rate of Mitra and Ulukus, "Scale-Robust Timely Asynchronous Decentralized
    Learning" (2404.19749); here a bound on every interval, not only on the mean.

    Example:
        >>> bucket = TokenBucket(rate=2.0)
        >>> bucket.take(0.0), bucket.take(0.0), bucket.ready(0.0)
        (True, False, 0.5)
    """

    __slots__ = ("_at", "_tokens", "depth", "rate")

    def __init__(self, rate: float, depth: float = 1.0) -> None:
        if not (0 < rate < math.inf and 1 <= depth < math.inf):
            raise BaechiError("B840", f"no token bucket has rate {rate} and depth {depth}", help="above 0; at least 1")
        self.rate, self.depth = rate, depth
        self._tokens, self._at = depth, 0.0

    def take(self, now: float) -> bool:
        """Take a token if there is one."""
        self._fill(now)
        if self._tokens < 1 - 1e-9:  # a token that came a rounding error late is there
            return False
        self._tokens -= 1
        return True

    def ready(self, now: float) -> float:
        """When a token is there, in seconds of the same clock: `now` or later."""
        self._fill(now)
        return now + max(0.0, 1 - self._tokens) / self.rate

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._tokens = min(self.depth, self._tokens + (now - self._at) * self.rate)
            self._at = now
