"""The compiled loops of the age simulator: merged Poisson clocks over flat arrays.

Staleness is never summed again over all pairs: an update at a time adds (peers - 1), a merge takes away what it
gained, each for the rest of the interval, so the integral over time is a running sum.
"""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from baechi.cost.jit import kernel, leaf

__all__ = ["AREA", "EXCHANGES", "PAIRS", "PULL", "PUSH_SUM", "SYMMETRIC", "UPDATES", "State", "flood", "mix", "replay"]

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Versions: TypeAlias = NDArray[np.int32]

PULL, SYMMETRIC, PUSH_SUM = 0, 1, 2
PAIRS, AREA, EXCHANGES, UPDATES = 0, 1, 2, 3
_UNTRACKED = -1


class State(NamedTuple):
    """All that changes, and what it needs to know. n peers, k tracked sources, d values a peer.

    Attributes:
        versions: (n, k) how many updates of a source a peer's model reflects.
        slot: (n,) the column of a peer that is tracked, else -1.
        sources: (k,) the tracked peers.
        next_update: (k,) when each tracked source finishes its next update.
        values: (n, d) the models, times their weights.
        weights: (n,) of push-sum.
        turns: (n,) how many exchanges a peer began.
        totals: sum of staleness over pairs; its integral over the interval; exchanges; updates of tracked sources.
        offset: the fixed part of an update's duration.
        stage: the mean of its exponential part.
        share: (n,) or (1,) each peer's capacity over the highest.
        offsets, starts, targets: of the topology.
        turning: 1 when its offsets are used in turn.
    """

    versions: Versions
    slot: NDArray[np.int32]
    sources: Ints
    next_update: Floats
    values: Floats
    weights: Floats
    turns: NDArray[np.int32]
    totals: Floats
    offset: float
    stage: float
    share: Floats
    offsets: Ints
    starts: Ints
    targets: Ints
    turning: int


@leaf
def _merge(versions: Versions, into: int, of: int) -> int:
    """The elementwise maximum of two version vectors; how much it gained."""
    gained = 0
    for k in range(versions.shape[1]):
        mine, theirs = versions[into, k], versions[of, k]
        newer = max(mine, theirs)
        gained += newer - mine
        versions[into, k] = newer
    return gained


@leaf
def _average(values: Floats, a: int, b: int, weight: float) -> None:
    for d in range(values.shape[1]):
        values[a, d] += weight * (values[b, d] - values[a, d])


@leaf
def _exchange(s: State, a: int, b: int, mixing: int, weight: float) -> int:
    """Peer a begins an exchange with peer b; how much all version vectors gained."""
    if mixing == PULL:
        gained = _merge(s.versions, a, b)
        _average(s.values, a, b, weight)
        return gained
    if mixing == PUSH_SUM:
        s.weights[b] += s.weights[a] * weight
        s.weights[a] *= 1 - weight
        for d in range(s.values.shape[1]):
            s.values[b, d] += s.values[a, d] * weight
            s.values[a, d] *= 1 - weight
        return _merge(s.versions, b, a)
    gained = _merge(s.versions, a, b)
    for d in range(s.values.shape[1]):
        change = weight * (s.values[b, d] - s.values[a, d])
        s.values[a, d] += change
        s.values[b, d] -= change
    return gained + _merge(s.versions, b, a)


@leaf
def _update(rng: Any, s: State, peer: int, now: float, end: float) -> None:
    """Catch up with the updates that a source finished until now."""
    k = s.slot[peer]
    if k == _UNTRACKED:
        return
    while s.next_update[k] <= now:
        at = s.next_update[k]
        s.versions[peer, k] += 1
        s.totals[PAIRS] += len(s.slot) - 1
        s.totals[AREA] += (len(s.slot) - 1) * (end - at)
        s.totals[UPDATES] += 1
        s.next_update[k] = at + s.offset + s.stage * rng.standard_exponential()


@leaf
def _pick(rng: Any, s: State, peer: int) -> int:
    n = len(s.slot)
    if len(s.offsets):
        k = s.turns[peer] % len(s.offsets) if s.turning else int(rng.random() * len(s.offsets))
        if s.turning:
            s.turns[peer] += 1
        other = peer + s.offsets[k]
        return int(other - n if other >= n else other)
    if len(s.starts):
        first = s.starts[peer]
        return int(s.targets[first + int(rng.random() * (s.starts[peer + 1] - first))])
    other = int(rng.random() * (n - 1))
    return other + 1 if other >= peer else other


@kernel
def mix(rng: Any, s: State, start: float, end: float, rate: float, mixing: int, weight: float) -> None:
    """Gossip from one time to another: n Poisson clocks as one of their total rate, and a uniform choice.

    Args:
        rng: a numpy Generator.
        s: changed in place.
        start, end: in seconds; the clocks have no memory, so nothing is lost between two intervals.
        rate: the highest capacity of a peer, per second; lower ones are thinned.
        mixing: `PULL`, `SYMMETRIC` or `PUSH_SUM`.
        weight: of the other's model.
    """
    n = len(s.slot)
    s.totals[AREA] += s.totals[PAIRS] * (end - start)
    now = start + rng.standard_exponential() / (n * rate)
    while now < end:
        a = int(rng.random() * n)
        if len(s.share) == 1 or rng.random() < s.share[a]:
            b = _pick(rng, s, a)
            _update(rng, s, a, now, end)
            _update(rng, s, b, now, end)
            gained = _exchange(s, a, b, mixing, weight)
            s.totals[PAIRS] -= gained
            s.totals[AREA] -= gained * (end - now)
            s.totals[EXCHANGES] += 1
        now += rng.standard_exponential() / (n * rate)
    for source in s.sources:
        _update(rng, s, source, end, end)


@kernel
def flood(
    rng: Any,
    s: State,
    start: float,
    end: float,
    rate: float,
    weight: float,
    at: Floats,
    who: Ints,
    holders: Ints,
    holds: Ints,
) -> None:
    """Opportunistic gossip: those that know the newest update of all pass on that one, with the capacity of all peers.

    Args:
        rng: a numpy Generator.
        s: changed in place.
        start, end: in seconds.
        rate: capacity of a peer, per second, of which n are shared; before the first update nobody speaks.
        weight: of the speaker's model.
        at: (u,) when the updates of the interval are finished, in order.
        who: (u,) whose they are.
        holders: (n + 1,) how many know the newest update, and who, its source first.
        holds: (n,) 1 for each of them.
    """
    n = len(s.slot)
    s.totals[AREA] += s.totals[PAIRS] * (end - start)
    now = start + rng.standard_exponential() / (n * rate)
    u = 0
    while True:
        while u < len(at) and at[u] <= now:
            _announce(s, who[u], at[u], end, holders, holds)
            u += 1
        if now >= end:
            break
        if holders[0]:
            a = holders[1 + int(rng.random() * holders[0])]
            b = _pick(rng, s, a)
            gained = _tell(s, b, holders[1])
            _average(s.values, b, a, weight)
            s.totals[PAIRS] -= gained
            s.totals[AREA] -= gained * (end - now)
            s.totals[EXCHANGES] += 1
            if not holds[b]:
                _join(b, holders, holds)
        now += rng.standard_exponential() / (n * rate)


@leaf
def _announce(s: State, peer: int, at: float, end: float, holders: Ints, holds: Ints) -> None:
    """An update makes its source the only holder of the newest."""
    for h in range(1, holders[0] + 1):
        holds[holders[h]] = 0
    holders[0] = 0
    _join(peer, holders, holds)
    k = s.slot[peer]
    if k != _UNTRACKED:
        s.versions[peer, k] += 1
        s.totals[PAIRS] += len(s.slot) - 1
        s.totals[AREA] += (len(s.slot) - 1) * (end - at)
        s.totals[UPDATES] += 1


@leaf
def _tell(s: State, peer: int, source: int) -> int:
    """A peer learns a source's newest update; how much its version vector gained."""
    k = s.slot[source]
    if k == _UNTRACKED:
        return 0
    gained = s.versions[source, k] - s.versions[peer, k]
    s.versions[peer, k] += gained
    return int(gained)


@leaf
def _join(peer: int, holders: Ints, holds: Ints) -> None:
    holders[0] += 1
    holders[holders[0]] = peer
    holds[peer] = 1


@kernel
def replay(s: State, kinds: Ints, first: Ints, second: Ints, mixing: int, weight: float) -> None:
    """Apply a log of updates (kind 0: of `first`) and exchanges (kind 1: begun by `first` with `second`)."""
    for e in range(len(kinds)):
        if kinds[e]:
            s.totals[PAIRS] -= _exchange(s, first[e], second[e], mixing, weight)
            s.totals[EXCHANGES] += 1
        elif s.slot[first[e]] != _UNTRACKED:
            s.versions[first[e], s.slot[first[e]]] += 1
            s.totals[PAIRS] += len(s.slot) - 1
            s.totals[UPDATES] += 1
