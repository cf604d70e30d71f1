"""Clusters of unlike peers: each must hold the model, and all should be equally fast.

What is made small is the penalty of Ravnest's genetic algorithm, ``100 sum_c max(0, L - RAM_c) + max_c S_c - min_c S_c``
with L the memory that a model needs, ``RAM_c`` that of a cluster (both in MiB) and ``S_c = sum RAM_i / bandwidth_i`` (in
seconds). A few peers are tried out in every way; for more, local search by moving one peer or swapping two,
with kicks, which needs far fewer tries than crossing random assignments.
"""

from collections.abc import Sequence
from itertools import combinations
from random import Random
from typing import NamedTuple

from baechi.errors import BaechiError, Infeasible
from baechi.replicas.ravnest.nodes import Node
from baechi.units import format_bytes

__all__ = ["EXACT", "Formation", "form", "penalty"]

EXACT = 9
"""Peers up to which every way is tried."""

_MIB = 1 << 20
_SHORTAGE = 100.0
_KICKS = 60
_ENOUGH = 1e-12


class Formation(NamedTuple):
    """Clusters of peers.

    Attributes:
        clusters: indices of the peers of each.
        penalty: see the module; below 100 per MiB nothing lacks memory.
        shortage_bytes: memory that clusters lack, together.
    """

    clusters: tuple[tuple[int, ...], ...]
    penalty: float
    shortage_bytes: int


def penalty(nodes: Sequence[Node], clusters: Sequence[Sequence[int]], need_bytes: int) -> float:
    """What Ravnest makes small.

    Args:
        nodes: the peers.
        clusters: indices of the peers of each.
        need_bytes: L, what each cluster must hold.

    Example:
        >>> from baechi.ir.cluster import Device
        >>> peers = [Node(Device(name, 1 << 20), rate) for name, rate in (("a", 1 << 20), ("b", 1 << 19))]
        >>> penalty(peers, [[0], [1]], 3 << 19)
        101.0
    """
    short = sum(max(0, need_bytes - sum(nodes[i].memory_bytes for i in members)) for members in clusters)
    times = [sum(nodes[i].drain_seconds for i in members) for members in clusters]
    return _SHORTAGE * short / _MIB + max(times) - min(times)


def form(nodes: Sequence[Node], need_bytes: int, clusters: int | None = None, seed: int = 0) -> Formation:
    """Divide peers into clusters.

    Args:
        nodes: the peers.
        need_bytes: what each cluster must hold.
        clusters: how many; when None as many as can hold the model, as pace grows with their number.
        seed: of the search.

    Returns:
        The formation with the least penalty that was found; the least of all for up to `EXACT` peers.

    Raises:
        BaechiError: B854 on more clusters than peers, or none.
        Infeasible: B855 when so many clusters cannot each hold the model.
    """
    if clusters is not None and not 1 <= clusters <= len(nodes):
        what = f"{len(nodes)} peers make no {clusters} clusters"
        raise BaechiError("B854", what, help=f"a number from 1 to {len(nodes)}")
    total = sum(node.memory_bytes for node in nodes)
    most = clusters or min(len(nodes), max(1, total // max(1, need_bytes)))
    found = None
    for count in [most] if clusters else range(most, 0, -1):
        found = _best(nodes, need_bytes, count, seed)
        if found.shortage_bytes == 0:
            return found
    held = format_bytes(total)
    what = f"{most} cluster{'s' * (most > 1)} of {len(nodes)} peers with {held} together cannot hold"
    raise Infeasible(
        "B855",
        f"{what} {format_bytes(need_bytes)} each",
        help="add peers or memory, or ask for fewer clusters, or train with a smaller batch",
        proved=total < most * need_bytes or len(nodes) <= EXACT,
    )


def _best(nodes: Sequence[Node], need: int, count: int, seed: int) -> Formation:
    search = _Search(nodes, need, count)
    if len(nodes) <= EXACT:
        return search.formation(search.exact())
    return search.formation(search.local(Random(seed)))


class _Search:
    """Assignments of peers to clusters, by their sums."""

    def __init__(self, nodes: Sequence[Node], need: int, count: int) -> None:
        self._memory = [node.memory_bytes for node in nodes]
        self._drain = [node.drain_seconds for node in nodes]
        self._need, self._count = need, count

    def formation(self, home: Sequence[int]) -> Formation:
        clusters = [tuple(i for i, c in enumerate(home) if c == k) for k in range(self._count)]
        memory, _ = self._sums(home)
        short = sum(max(0, self._need - m) for m in memory)
        return Formation(tuple(sorted(clusters)), self._cost(home), short)

    def exact(self) -> list[int]:
        """Every way in which no cluster is empty, each once: a new cluster is opened only by the next peer."""
        best: tuple[float, list[int]] = (float("inf"), [])
        stack: list[list[int]] = [[0]]
        while stack:
            home = stack.pop()
            opened, left = max(home) + 1, len(self._memory) - len(home)
            if opened + left < self._count:
                continue
            if left == 0:
                best = min(best, (self._cost(home), home))
                continue
            stack += [[*home, c] for c in range(min(opened + 1, self._count))]
        return best[1]

    def local(self, random: Random) -> list[int]:
        """Descend from the greedy start, then kick and descend again."""
        best = self._descend(self._greedy())
        cost = self._cost(best)
        for _ in range(_KICKS):
            kicked = list(best)
            for i in random.sample(range(len(best)), min(len(best), 3)):
                kicked[i] = random.randrange(self._count)
            if len(set(kicked)) < self._count:
                continue
            tried = self._descend(kicked)
            if self._cost(tried) < cost - _ENOUGH:
                best, cost = tried, self._cost(tried)
        return best

    def _greedy(self) -> list[int]:
        """The largest first, each to the cluster that has least."""
        home, memory = [0] * len(self._memory), [0] * self._count
        for i in sorted(range(len(home)), key=lambda i: (-self._memory[i], i)):
            home[i] = min(range(self._count), key=lambda c: (memory[c], c))
            memory[home[i]] += self._memory[i]
        return home

    def _descend(self, home: list[int]) -> list[int]:
        home, cost = list(home), self._cost(home)
        while True:
            better = self._step(home, cost)
            if better is None:
                return home
            home, cost = better

    def _step(self, home: list[int], cost: float) -> tuple[list[int], float] | None:
        """The best move of one peer or swap of two; None when none helps."""
        memory, drain = self._sums(home)
        size = [home.count(c) for c in range(self._count)]
        best, chosen = cost - _ENOUGH, None
        moves = [((i, c),) for i in range(len(home)) for c in range(self._count) if c != home[i] and size[home[i]] > 1]
        pairs = [p for p in combinations(range(len(home)), 2) if home[p[0]] != home[p[1]]]
        for move in [*moves, *(((i, home[j]), (j, home[i])) for i, j in pairs)]:
            m, d = list(memory), list(drain)
            for i, c in move:
                m[home[i]] -= self._memory[i]
                d[home[i]] -= self._drain[i]
                m[c] += self._memory[i]
                d[c] += self._drain[i]
            tried = self._of_sums(m, d)
            if tried < best:
                best, chosen = tried, move
        if chosen is None:
            return None
        moved = list(home)
        for i, c in chosen:
            moved[i] = c
        return moved, self._cost(moved)

    def _sums(self, home: Sequence[int]) -> tuple[list[int], list[float]]:
        memory, drain = [0] * self._count, [0.0] * self._count
        for i, c in enumerate(home):
            memory[c] += self._memory[i]
            drain[c] += self._drain[i]
        return memory, drain

    def _cost(self, home: Sequence[int]) -> float:
        return self._of_sums(*self._sums(home))

    def _of_sums(self, memory: Sequence[int], drain: Sequence[float]) -> float:
        short = sum(max(0, self._need - m) for m in memory)
        return _SHORTAGE * short / _MIB + max(drain) - min(drain)
