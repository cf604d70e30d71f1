"""Whom a peer may talk to, and whether mixing along these edges finds the mean."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from baechi.errors import BaechiError

__all__ = [
    "TOPOLOGIES",
    "Chooser",
    "Topology",
    "mixing_matrix",
    "mixing_warning",
    "parse_topology",
    "perron_weights",
    "topology_of",
]

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

TOPOLOGIES = ("complete", "exponential", "one-peer-exponential", "random-regular:DEGREE", "ring", "torus")
"""What `parse_topology` reads."""

_MOST_REPAIRS = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Topology:
    """A directed graph of peers, by out-neighbours; a symmetric one has each edge twice.

    Attributes:
        name: as `parse_topology` reads it.
        peers: how many.
        offsets: of a circulant graph: peer i has the neighbours i + offset, modulo `peers`.
        starts: (peers + 1,) of another graph: where a peer's neighbours begin in `targets`.
        targets: the neighbours, peer after peer. A complete graph has neither offsets nor these.
        turns: the k-th exchange of a peer uses the k-th offset only, over and over: a graph that varies in time.

    Example:
        >>> parse_topology("ring", 5).neighbours(0)
        (1, 4)
    """

    name: str
    peers: int
    offsets: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    starts: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    targets: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    turns: bool = False

    def neighbours(self, peer: int) -> tuple[int, ...]:
        """All that a peer ever talks to, in order."""
        if len(self.offsets):
            return tuple(sorted({int(j) for j in (peer + self.offsets) % self.peers}))
        if len(self.starts):
            return tuple(sorted(int(j) for j in self.targets[self.starts[peer] : self.starts[peer + 1]]))
        return tuple(j for j in range(self.peers) if j != peer)

    def pick(self, peer: int, random: Random, turn: int = 0) -> int:
        """A neighbour, uniformly; in a graph that varies in time, the one of this turn.

        Args:
            peer: whose.
            random: decides.
            turn: how many exchanges the peer began before.
        """
        if len(self.offsets):
            k = turn % len(self.offsets) if self.turns else random.randrange(len(self.offsets))
            return int(peer + self.offsets[k]) % self.peers
        if len(self.starts):
            return int(self.targets[random.randrange(int(self.starts[peer]), int(self.starts[peer + 1]))])
        other = random.randrange(self.peers - 1)
        return other + (other >= peer)


class Chooser:
    """Picks a peer's neighbours one after the other; for `baechi.replicas.gossip.Gossip`.

    Args:
        topology: of all peers.
        peer: whose neighbours.
    """

    __slots__ = ("peer", "topology", "turn")

    def __init__(self, topology: Topology, peer: int) -> None:
        self.topology, self.peer, self.turn = topology, peer, -1

    def __call__(self, random: Random, now: float) -> int:
        """A neighbour; `now` has no say."""
        self.turn += 1
        return self.topology.pick(self.peer, random, self.turn)


def parse_topology(text: str, peers: int, seed: int = 0) -> Topology:
    """Read a topology.

    Args:
        text: one of `TOPOLOGIES`. ``exponential`` has the neighbours i + 1, i + 2, i + 4 …; ``one-peer-exponential``
            uses one of them after the other, so that each exchange is one message; a torus is as square as it can be.
        peers: how many; at least 2.
        seed: of a random graph.

    Raises:
        BaechiError: B841 on anything else, or when so many peers cannot form it.

    Source: Ying et al., "Exponential Graph is Provably Efficient for Decentralized Deep Learning" (2110.13363).
    """
    name, _, degree = text.partition(":")
    if peers < 2:
        raise BaechiError("B841", f"{peers} peers form no topology", help="at least 2")
    if name == "random-regular" and degree.isdigit():
        return _random_regular(peers, int(degree), seed)
    if text == "complete":
        return Topology(text, peers)
    if text == "ring":
        return Topology(text, peers, offsets=np.array([1, peers - 1][: peers - 1], np.int64))
    if text in ("exponential", "one-peer-exponential"):
        steps = np.array([1 << k for k in range(math.ceil(math.log2(peers)))], np.int64)
        return Topology(text, peers, offsets=steps, turns=text.startswith("one"))
    if text == "torus":
        return _torus(peers)
    raise BaechiError("B841", f"'{text}' is no topology", help=f"one of: {', '.join(TOPOLOGIES)}")


def topology_of(neighbours: Sequence[Sequence[int]], name: str = "given") -> Topology:
    """The topology of any directed graph.

    Args:
        neighbours: of each peer: whom it talks to, by number; nobody talks to itself, everybody to somebody.
        name: of the graph.

    Raises:
        BaechiError: B841 when a neighbour is no peer, is the peer itself, or a peer has none.
    """
    peers = len(neighbours)
    for i, row in enumerate(neighbours):
        if not row or any(not 0 <= j < peers or j == i for j in row):
            raise BaechiError(
                "B841", f"peer {i} of {peers} cannot have the neighbours {list(row)}", help="at least one other peer"
            )
    starts = np.concatenate([[0], np.cumsum([len(row) for row in neighbours])]).astype(np.int64)
    return Topology(name, peers, starts=starts, targets=np.array([j for row in neighbours for j in row], np.int64))


def _torus(peers: int) -> Topology:
    rows = next(r for r in range(math.isqrt(peers), 0, -1) if peers % r == 0)
    if rows == 1:
        raise BaechiError("B841", f"{peers} peers form no torus", help="a number with factors, or --topology ring")
    i = np.arange(peers)
    row, column, columns = i // (peers // rows), i % (peers // rows), peers // rows
    across = [row * columns + (column + step) % columns for step in (1, -1)]
    along = [(row + step) % rows * columns + column for step in (1, -1)]
    table = np.stack([*across[: columns - 1], *along[: rows - 1]], axis=1)
    starts = np.arange(peers + 1, dtype=np.int64) * table.shape[1]
    return Topology("torus", peers, starts=starts, targets=table.astype(np.int64).ravel())


def _random_regular(peers: int, degree: int, seed: int) -> Topology:
    """A union of random Hamiltonian cycles, and of a random perfect matching when the degree is odd.

    Source: Wormald, "Models of random regular graphs" (1999): such a union is contiguous to the uniform random graph.
    """
    if not 1 <= degree < peers or degree * peers % 2:
        raise BaechiError(
            "B841", f"no graph of {peers} peers is {degree}-regular", help="an even product, fewer than n"
        )
    if 2 * degree >= peers:  # dense: its complement is sparse
        return _complement(
            _random_regular(peers, peers - 1 - degree, seed) if degree < peers - 1 else None, peers, degree
        )
    rng = np.random.default_rng(seed)
    known = np.zeros(0, np.int64)
    for layer in range(degree // 2 + degree % 2):
        known = np.concatenate([known, _layer(rng, peers, known, matching=layer == degree // 2)])
    a, b = known // peers, known % peers
    sources, targets = np.concatenate([a, b]), np.concatenate([b, a])
    starts = np.arange(peers + 1, dtype=np.int64) * degree
    return Topology(f"random-regular:{degree}", peers, starts=starts, targets=targets[np.lexsort((targets, sources))])


def _layer(rng: np.random.Generator, peers: int, known: Ints, *, matching: bool) -> Ints:
    """Edges of a random cycle or matching as ``low * peers + high``; clashes with known ones are swapped away."""
    order = rng.permutation(peers)
    for _ in range(_MOST_REPAIRS):
        ends = (order[0::2], order[1::2]) if matching else (order, np.roll(order, -1))
        edges = np.minimum(*ends) * peers + np.maximum(*ends)
        clashes = np.flatnonzero(np.isin(edges, known))
        if not len(clashes):
            return edges.astype(np.int64)
        for k in clashes:
            one, other = int(2 * k if matching else k), int(rng.integers(peers))
            order[one], order[other] = order[other], order[one]
    raise BaechiError("B841", f"found no random regular graph of {peers} peers", help="another degree or seed")


def _complement(sparse: Topology | None, peers: int, degree: int) -> Topology:
    everybody = range(peers)
    kept = [set(sparse.neighbours(i)) if sparse else set() for i in everybody]
    return topology_of(
        [[j for j in everybody if j != i and j not in kept[i]] for i in everybody], f"random-regular:{degree}"
    )


def mixing_matrix(topology: Topology, weight: float = 0.5) -> Floats:
    """(n, n) what an exchange does on average when each peer pulls once: row i says what peer i's model is made of.

    Args:
        topology: whom each pulls from, uniformly.
        weight: of what was pulled.
    """
    n = topology.peers
    matrix = np.eye(n) * (1 - weight)
    for i in range(n):
        near = list(topology.neighbours(i))
        matrix[i, near] += weight / len(near)
    return matrix


def perron_weights(matrix: NDArray[Any]) -> Floats:
    """(n,) the weights with which row-stochastic mixing counts the peers: the left eigenvector of the eigenvalue 1.

    Args:
        matrix: (n, n) row-stochastic and irreducible.

    Example:
        >>> perron_weights(np.array([[0.5, 0.5], [0.25, 0.75]])).round(4).tolist()
        [0.3333, 0.6667]
    """
    n = len(matrix)
    system = np.vstack([np.asarray(matrix, np.float64).T - np.eye(n), np.ones(n)])
    solution: Floats = np.linalg.lstsq(system, np.append(np.zeros(n), 1.0), rcond=None)[0]
    return solution


def mixing_warning(matrix: NDArray[Any], tolerance: float = 1e-9) -> str | None:
    """What a person should know about a mixing matrix; None when it is doubly stochastic.

    Args:
        matrix: (n, n): row i says what peer i's model is made of.
        tolerance: on sums of rows and columns.

    Example:
        >>> mixing_warning(np.full((3, 3), 1 / 3)) is None
        True
    """
    m = np.asarray(matrix, np.float64)
    if m.ndim != 2 or m.shape[0] != m.shape[1]:
        raise BaechiError("B841", f"a mixing matrix of shape {m.shape} is not square")
    if (m < -tolerance).any() or np.abs(m.sum(axis=1) - 1).max() > tolerance:
        i = int(np.argmax(np.abs(m.sum(axis=1) - 1)))
        return (
            f"the mixing weights of peer {i} sum to {m[i].sum():.4g}, not 1, or are below 0: the models do not converge"
        )
    if np.abs(m.sum(axis=0) - 1).max() <= tolerance:
        return None
    weights = perron_weights(m) * len(m)
    return (
        "the mixing matrix is row-stochastic only: training converges to an optimum that counts the peers "
        f"{weights.min():.2f} to {weights.max():.2f} times an equal share, not to the mean; "
        "push-sum has no such bias (mixing = push-sum)"
    )
