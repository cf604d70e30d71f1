"""How stale gossip leaves the peers' knowledge of each other, simulated for 2 to a million peers."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from baechi.errors import BaechiError
from baechi.replicas.age_model import MIXING, AgeModel, staleness_law
from baechi.replicas.ages_loop import (
    AREA,
    EXCHANGES,
    PAIRS,
    UPDATES,
    State,
    flood,
    mix,
    replay,
)

__all__ = ["Ages", "replay_ages", "simulate_ages"]

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

_MOST_TRACKED = 4096  # of whom all are sources
_SAMPLED = 64
_MOST_VERSIONS = 2**30  # 4 GiB of version vectors
_MOST_NEWS = 2**28
_MOST_WORK = 1e9  # of one call that nobody can interrupt: about a second
_RELAXATIONS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Ages:
    """What a simulation saw. n peers, k tracked sources, d values.

    Attributes:
        seconds: simulated.
        warmup: seconds at the beginning that the mean leaves out.
        settled: it left out all that is known to be needed; otherwise staleness may still grow.
        mean_staleness: of a peer's model about another peer, in updates: E[S]; over time, peers and tracked sources.
        error: standard error of this mean, from means of consecutive intervals; None when they are
            fewer than 4 or not settled.
        times: (b + 1,) where the intervals begin and end, in seconds; a warm-up is one interval.
        staleness: (b,) mean of each.
        disagreement: (b + 1,) root mean square distance of the values from their weighted mean at these times, over
            the one at the beginning; empty when d is 0.
        staleness_at_end: over peers and tracked sources, at the end.
        exchanges: how many.
        updates: of the tracked sources.
        sources: (k,) who is tracked.
        versions: (n, k) the version vectors at the end.
        values: (n, d) at the end; divided by the weight in push-sum.
        weights: (n,) of push-sum at the end.
    """

    seconds: float
    warmup: float
    settled: bool
    mean_staleness: float
    error: float | None
    times: Floats
    staleness: Floats
    disagreement: Floats
    staleness_at_end: float
    exchanges: int
    updates: int
    sources: Ints
    versions: NDArray[np.int32]
    values: Floats
    weights: Floats


def simulate_ages(
    gossip: AgeModel,
    seconds: float,
    *,
    seed: int = 0,
    warmup: float | None = None,
    sources: int | None = None,
    dimension: int = 0,
    values: Floats | None = None,
    intervals: int = 20,
) -> Ages:
    """Simulate the gossip core event by event; the seed fixes every number.

    Args:
        gossip: what to simulate.
        seconds: for how long, in simulated time.
        seed: of everything random.
        warmup: seconds to leave out of the means; the time in which news reach all peers, and at most half, when None.
        sources: how many peers' updates to track: all up to 4,096 peers and 64 beyond when None. A sample is drawn
            uniformly, so that its mean is an unbiased estimate of the mean over all.
        dimension: values that each peer carries and mixes, normally distributed at the beginning; nothing trains them.
        values: (n, dimension) these values, instead.
        intervals: of equal length after the warm-up, for which means are kept.

    Raises:
        BaechiError: B842 on times, counts or sizes that cannot be simulated.

    Example:
        >>> from baechi.replicas.topology import parse_topology
        >>> gossip = AgeModel(parse_topology("complete", 8))
        >>> round(simulate_ages(gossip, 20_000.0).mean_staleness, 1)
        2.6
    """
    n = gossip.topology.peers
    tracked = (n if n <= _MOST_TRACKED else _SAMPLED) if sources is None else sources
    if not 0 < seconds < math.inf or intervals < 1:
        raise BaechiError("B842", f"cannot simulate {seconds} seconds in {intervals} intervals")
    if not 1 <= tracked <= n or tracked * n > _MOST_VERSIONS:
        raise BaechiError("B842", f"cannot track {tracked} sources of {n} peers", help="at most n, and 2^30 entries")
    relaxation = _relaxation(gossip)
    warm = min(relaxation, seconds / 2) if warmup is None else warmup
    if not 0 <= warm < seconds:
        raise BaechiError("B842", f"a warm-up of {warm} s leaves nothing of {seconds} s")
    rng = np.random.default_rng(seed)
    state = _begin(gossip, rng, tracked, dimension if values is None else values)
    news = _news(gossip, rng, seconds) if gossip.opportunistic else None
    ends = [float(end) for end in np.linspace(warm, seconds, intervals + 1)]
    spread = [_disagreement(state)]
    means = []
    for start, end in pairwise([0.0, *ends] if warm else ends):
        means.append(_advance(gossip, state, rng, start, end, news) / (end - start))
        spread.append(_disagreement(state))
    after = np.array(means[-intervals:])
    return Ages(
        seconds=seconds,
        warmup=warm,
        settled=warm >= relaxation,
        mean_staleness=float(after.mean()),
        error=float(after.std(ddof=1) / math.sqrt(intervals)) if intervals >= 4 and warm >= relaxation else None,
        times=np.array([0.0, *ends] if warm else ends),
        staleness=np.array(means),
        disagreement=np.array(spread) / (spread[0] or 1.0) if state.values.shape[1] else np.zeros(0),
        **_end(state),
    )


def replay_ages(gossip: AgeModel, kinds: Ints, first: Ints, second: Ints, values: Floats | None = None) -> Ages:
    """Apply a log of events that somebody else ordered, to compare.

    Args:
        gossip: how exchanges mix; clocks and topology have no say.
        kinds: (e,) 0 for an update of `first`, 1 for an exchange that `first` began with `second`.
        first: (e,) peers.
        second: (e,) peers; ignored for updates.
        values: (n, d) the models, which updates do not change.
    """
    state = _begin(gossip, np.random.default_rng(0), gossip.topology.peers, 0 if values is None else values)
    before = _disagreement(state)
    kinds, first, second = (np.asarray(part, np.int64) for part in (kinds, first, second))
    replay(state, kinds, first, second, MIXING[gossip.mixing], gossip.weight)
    mean = _mean(state)
    return Ages(
        seconds=0.0,
        warmup=0.0,
        settled=False,
        mean_staleness=mean,
        error=None,
        times=np.zeros(1),
        staleness=np.array([mean]),
        disagreement=np.array([1.0, _disagreement(state) / (before or 1.0)]),
        **_end(state),
    )


def _end(state: State) -> dict[str, Any]:
    """The part of `Ages` that the state at the end says."""
    return {
        "staleness_at_end": _mean(state),
        "exchanges": int(state.totals[EXCHANGES]),
        "updates": int(state.totals[UPDATES]),
        "sources": state.sources,
        "versions": state.versions,
        "values": state.values / state.weights[:, None],
        "weights": state.weights,
    }


def _mean(state: State) -> float:
    return float(state.totals[PAIRS] / _pairs(state))


class _News(NamedTuple):
    """Updates of all peers in the order of time, and who holds the newest."""

    at: Floats
    who: Ints
    holders: Ints
    holds: Ints


def _advance(
    gossip: AgeModel, state: State, rng: np.random.Generator, start: float, end: float, news: _News | None
) -> float:
    """Simulate an interval; the integral of the mean staleness over it."""
    state.totals[AREA] = 0.0
    rate = float(np.max(gossip.capacity))
    work = (end - start) * rate * len(state.slot) * (len(state.sources) + state.values.shape[1] + 10)
    for one, other in pairwise(np.linspace(start, end, math.ceil(work / _MOST_WORK) + 1).tolist()):
        _piece(gossip, state, rng, one, other, news)
    return float(state.totals[AREA] / _pairs(state))


def _piece(
    gossip: AgeModel, state: State, rng: np.random.Generator, start: float, end: float, news: _News | None
) -> None:
    rate = float(np.max(gossip.capacity))
    if news is None:
        mix(rng, state, start, end, rate, MIXING[gossip.mixing], gossip.weight)
    else:
        some = slice(*np.searchsorted(news.at, (start, end)))
        flood(rng, state, start, end, rate, gossip.weight, news.at[some], news.who[some], news.holders, news.holds)


def _pairs(state: State) -> int:
    return len(state.sources) * (len(state.slot) - 1)


def _begin(gossip: AgeModel, rng: np.random.Generator, tracked: int, values: Floats | int) -> State:
    n = gossip.topology.peers
    sources = np.sort(rng.choice(n, tracked, replace=False)).astype(np.int64)
    slot = np.full(n, -1, np.int32)
    slot[sources] = np.arange(tracked)
    stage = 1 / gossip.update_rate
    rates = np.atleast_1d(np.asarray(gossip.capacity, np.float64))
    start = rng.standard_normal((n, values)) if isinstance(values, int) else np.array(values, np.float64)
    if start.ndim != 2 or len(start) != n:
        raise BaechiError("B842", f"values of shape {start.shape} are not one row for each of {n} peers")
    topology = gossip.topology
    return State(
        versions=np.zeros((n, tracked), np.int32),
        slot=slot,
        sources=sources,
        next_update=gossip.compute_offset + rng.exponential(stage, tracked),
        values=start,
        weights=np.ones(n),
        turns=np.zeros(n if topology.turns else 0, np.int32),
        totals=np.zeros(4),
        offset=float(gossip.compute_offset),
        stage=stage,
        share=rates / rates.max(),
        offsets=topology.offsets,
        starts=topology.starts,
        targets=topology.targets,
        turning=int(topology.turns),
    )


def _news(gossip: AgeModel, rng: np.random.Generator, seconds: float) -> _News:
    """Every update of every peer, drawn before the gossip: the update clocks do not listen to it."""
    n, mean = gossip.topology.peers, 1 / gossip.effective_rate
    many = int(seconds / mean + 10 * math.sqrt(seconds / mean) + 20)
    if n * many > _MOST_NEWS:
        raise BaechiError(
            "B842", f"{n} peers make too many updates in {seconds:g} s", help="fewer peers or a shorter time"
        )
    lasts = gossip.compute_offset + rng.exponential(1 / gossip.update_rate, (n, many))
    at = np.cumsum(lasts, axis=1)
    who, k = np.nonzero(at < seconds)
    order = np.argsort(at[who, k], kind="stable")
    return _News(at[who, k][order], who[order], np.zeros(n + 1, np.int64), np.zeros(n, np.int64))


def _disagreement(state: State) -> float:
    """Root mean square distance of the models from their weighted mean."""
    if not state.values.shape[1]:
        return 0.0
    mean = state.values.sum(axis=0) / state.weights.sum()
    return float(np.sqrt(((state.values / state.weights[:, None] - mean) ** 2).mean()))


def _relaxation(gossip: AgeModel) -> float:
    """Seconds after which old news have reached nearly everybody: before, staleness still grows."""
    n, law = gossip.topology.peers, staleness_law(gossip)
    speed = float(np.mean(gossip.capacity)) * (2 if gossip.mixing == "symmetric" else 1)
    typical = law / gossip.effective_rate if law is not None else (math.sqrt(n) + 2 * math.log(n)) / speed
    if gossip.opportunistic:
        return 4 * (typical if law is not None else n / speed)
    return 1.5 * typical + 8 / speed
