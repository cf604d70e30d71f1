"""Averages over clusters that split one model differently: a ring for each slice that one peer of each cluster holds.

Each ring is a reduce-scatter and an all-gather: of k members each sends 2(k - 1) of k chunks, ``2(k-1)/k`` of the
slice. Nobody changes anything before its ring is done. Where a member dies, the ring starts again without it, from
what the living had: the result is the mean over those that finish, to the same bits in all of them. Other rings go on.

Source: Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations" (2009); Menon et al.,
"Ravnest" (2401.01728), section on parallel multi-ring all-reduce.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from baechi.errors import BaechiError

__all__ = ["Averaged", "Averages", "Member", "Ring", "average", "find_rings", "reduce_ring"]

Floats: TypeAlias = NDArray[np.floating[Any]]
Held: TypeAlias = Mapping[str, Floats]


class Ring(NamedTuple):
    """Parameters that one peer of each cluster holds.

    Attributes:
        names: of the parameters, in order.
        stages: by cluster, the stage that holds them all.
    """

    names: tuple[str, ...]
    stages: tuple[int, ...]


def find_rings(splits: Sequence[Sequence[Collection[str]]], order: Sequence[str]) -> tuple[Ring, ...]:
    """The fewest contiguous slices of the parameters that one stage of each cluster holds whole.

    Args:
        splits: by cluster and stage, the names of its parameters.
        order: all names.

    Raises:
        BaechiError: B856 when a cluster does not hold each parameter in exactly one stage.

    Example:
        >>> find_rings([[{"a"}, {"b", "c"}], [{"a", "b"}, {"c"}]], "abc")
        (Ring(names=('a',), stages=(0, 0)), Ring(names=('b',), stages=(1, 0)), Ring(names=('c',), stages=(1, 1)))
    """
    holders: list[dict[str, int]] = []
    for c, stages in enumerate(splits):
        home = {name: s for s, names in enumerate(stages) for name in names}
        if len(home) != sum(map(len, stages)) or home.keys() != set(order):
            what = f"cluster {c} does not hold each parameter of the model in one of its stages"
            raise BaechiError("B856", what, help="split the same model in every cluster")
        holders.append(home)
    slices = groupby(order, key=lambda name: tuple(home[name] for home in holders))
    return tuple(Ring(tuple(names), stages) for stages, names in slices)


@dataclass(slots=True)
class Member:
    """One peer's part in a ring; a carrier moves what `outgoing` gives to `accept` of the next member, round by round.

    Args:
        rank: its place in the ring.
        size: k, how many members.
        vector: what it brings; it is not changed.
    """

    rank: int
    size: int
    vector: Floats
    sent_bytes: int = 0
    _chunks: list[Floats] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chunks = [chunk.copy() for chunk in np.array_split(self.vector, self.size)]

    @property
    def rounds(self) -> int:
        """How many there are: k - 1 that sum up, k - 1 that hand out."""
        return 2 * (self.size - 1)

    @property
    def result(self) -> Floats:
        """The mean, after the last round."""
        return np.concatenate(self._chunks)

    def outgoing(self, turn: int) -> Floats:
        """What it sends to the next member in a round."""
        handed = turn - (self.size - 1)
        chunk = self._chunks[(self.rank - turn if handed < 0 else self.rank + 1 - handed) % self.size]
        self.sent_bytes += chunk.nbytes
        return chunk

    def accept(self, turn: int, chunk: Floats) -> None:
        """What came from the member before it in a round; who has a chunk's whole sum divides it, for all."""
        handed = turn - (self.size - 1)
        if handed >= 0:
            self._chunks[(self.rank - handed) % self.size] = chunk
            return
        at = (self.rank - turn - 1) % self.size
        total = self._chunks[at] + chunk
        self._chunks[at] = total / self.size if handed == -1 else total


class Averaged(NamedTuple):
    """What a ring came to.

    Attributes:
        vectors: by member, the mean over `living`; of the dead None.
        living: the members that it is the mean of.
        sent_bytes: by member, all attempts counted.
        attempts: how many it took.
    """

    vectors: tuple[Floats | None, ...]
    living: tuple[int, ...]
    sent_bytes: tuple[int, ...]
    attempts: int


def reduce_ring(vectors: Sequence[Floats], deaths: Mapping[int, int] | None = None) -> Averaged:
    """Carry a ring's messages, all of a round at once.

    Args:
        vectors: what each member brings, of one length and type.
        deaths: by member, the round before which it dies, counted over all attempts.

    Raises:
        BaechiError: B856 on vectors that differ in length or type, B857 when nobody is left.

    Example:
        >>> found = reduce_ring([np.array([0.0, 2.0]), np.array([4.0, 4.0])])
        >>> found.vectors[0].tolist(), found.sent_bytes
        ([2.0, 3.0], (16, 16))
    """
    if len({(v.shape, v.dtype) for v in vectors}) != 1 or vectors[0].ndim != 1:
        raise BaechiError("B856", "the members of a ring bring vectors of different length or type")
    deaths, clock, attempts = deaths or {}, 0, 0
    sent = [0] * len(vectors)
    living = tuple(range(len(vectors)))
    while True:
        attempts += 1
        ring = [Member(rank, len(living), vectors[m]) for rank, m in enumerate(living)]
        dead: set[int] = set()
        for turn in range(ring[0].rounds):
            dead = {m for m in living if deaths.get(m, clock + 1) <= clock}
            if dead:
                break
            chunks = [member.outgoing(turn) for member in ring]
            for rank, member in enumerate(ring):
                member.accept(turn, chunks[rank - 1])
            clock += 1
        for member, m in zip(ring, living, strict=True):
            sent[m] += member.sent_bytes
        if not dead:
            break
        living = tuple(m for m in living if m not in dead)
        if not living:
            raise BaechiError("B857", "no member of a ring is left", help="restore them from their checkpoints")
    results = {m: member.result for member, m in zip(ring, living, strict=True)}
    return Averaged(tuple(results.get(m) for m in range(len(vectors))), living, tuple(sent), attempts)


@dataclass(frozen=True, eq=False)
class Averages:
    """What all rings came to.

    Attributes:
        arrays: by cluster and stage, the new parameters; what a dead peer held is as it was.
        sent_bytes: by cluster and stage.
        rings: the slices.
        skipped: by ring, the clusters that are not in its mean.
    """

    arrays: tuple[tuple[Mapping[str, Floats], ...], ...]
    sent_bytes: tuple[tuple[int, ...], ...]
    rings: tuple[Ring, ...]
    skipped: tuple[tuple[int, ...], ...]


def average(
    clusters: Sequence[Sequence[Held]], order: Sequence[str], deaths: Mapping[tuple[int, int], int] | None = None
) -> Averages:
    """Average a model over clusters, each of which holds it in stages of its own.

    Args:
        clusters: by cluster and stage, parameters by name.
        order: all names; slices are contiguous in it.
        deaths: by (cluster, stage), the round of each of its rings before which that peer dies.

    Raises:
        BaechiError: B856 when the clusters do not hold one model; B857 when all holders of a slice are dead.

    Example:
        >>> one, two = {"w": np.array([1.0])}, {"w": np.array([3.0])}
        >>> average([[one], [two]], ["w"]).arrays[0][0]["w"].tolist()
        [2.0]
    """
    rings = _of_one_type(find_rings(clusters, order), clusters[0])
    new = [[dict(held) for held in stages] for stages in clusters]
    sent = [[0] * len(stages) for stages in clusters]
    skipped = []
    for ring in rings:
        holders = [clusters[c][s] for c, s in enumerate(ring.stages)]
        _check_shapes(ring, holders)
        dying = {c: deaths[c, s] for c, s in enumerate(ring.stages) if deaths and (c, s) in deaths}
        found = reduce_ring([np.concatenate([held[n].reshape(-1) for n in ring.names]) for held in holders], dying)
        for c, s in enumerate(ring.stages):
            sent[c][s] += found.sent_bytes[c]
            vector = found.vectors[c]
            if vector is not None:
                new[c][s].update(_cut(vector, ring.names, holders[c]))
        skipped.append(tuple(c for c in range(len(clusters)) if c not in found.living))
    arrays = tuple(tuple(stages) for stages in new)
    return Averages(arrays, tuple(tuple(bytes_) for bytes_ in sent), rings, tuple(skipped))


def _of_one_type(rings: Sequence[Ring], held: Sequence[Held]) -> tuple[Ring, ...]:
    """Slices in which no type is converted into another."""
    found = []
    for ring in rings:
        stage = held[ring.stages[0]]
        found += [Ring(tuple(names), ring.stages) for _, names in groupby(ring.names, key=partial(_type, stage))]
    return tuple(found)


def _check_shapes(ring: Ring, holders: Sequence[Held]) -> None:
    for name in ring.names:
        if len({(held[name].shape, held[name].dtype) for held in holders}) != 1:
            raise BaechiError("B856", f"'{name}' has different shapes or types in the clusters")


def _cut(vector: Floats, names: Sequence[str], like: Held) -> dict[str, Floats]:
    ends = np.cumsum([like[name].size for name in names])[:-1]
    return {n: part.reshape(like[n].shape) for n, part in zip(names, np.split(vector, ends), strict=True)}


def _type(held: Held, name: str) -> str:
    return held[name].dtype.str
