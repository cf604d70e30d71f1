"""Mixing matrices of gossip: who listens to whom, and how much."""

from collections.abc import Sequence
from math import isqrt

from baechi.replicas.methods.descent import refuse

__all__ = ["TOPOLOGIES", "checked", "mixing_matrix"]

TOPOLOGIES = ("ring", "torus", "complete")
_CLOSE = 1e-9


def mixing_matrix(topology: str, count: int) -> tuple[tuple[float, ...], ...]:
    """The doubly stochastic matrix of a graph: w_ij = 1 / (1 + max(degree_i, degree_j)) (Metropolis).

    Args:
        topology: one of `TOPOLOGIES`; a torus is as square as `count` allows, at least two rows of two.
        count: of workers.

    Raises:
        BaechiError: B831 when there is no such graph.

    Example:
        >>> mixing_matrix("ring", 4)[0][1:]
        (0.3333333333333333, 0.0, 0.3333333333333333)
    """
    near = _neighbours(topology, count)
    rows = []
    for i in range(count):
        row = [1 / (1 + max(len(near[i]), len(near[j]))) if j in near[i] else 0.0 for j in range(count)]
        row[i] = 1 - sum(row)
        rows.append(tuple(row))
    return tuple(rows)


def checked(name: str, matrix: Sequence[Sequence[float]], count: int) -> tuple[tuple[float, ...], ...]:
    """A mixing matrix that is symmetric, not negative, and whose rows sum to 1.

    Raises:
        BaechiError: B831 when it is not so, or not for `count` workers.
    """
    if len(matrix) != count or any(len(row) != count for row in matrix):
        raise refuse(name, f"the mixing matrix is not for {count} workers")
    for i, row in enumerate(matrix):
        if abs(sum(row) - 1) > _CLOSE or min(row) < 0:
            raise refuse(name, f"row {i} of the mixing matrix is no distribution", "each row sums to 1")
        if any(abs(w - matrix[j][i]) > _CLOSE for j, w in enumerate(row)):
            raise refuse(name, f"row {i} of the mixing matrix is not its column", "make it symmetric")
    return tuple(tuple(row) for row in matrix)


def _neighbours(topology: str, count: int) -> list[set[int]]:
    if topology == "complete":
        return [set(range(count)) - {i} for i in range(count)]
    if topology == "ring":
        return [{(i - 1) % count, (i + 1) % count} - {i} for i in range(count)]
    if topology != "torus":
        raise refuse("gossip", f"no topology '{topology}'", "one of: " + ", ".join(TOPOLOGIES))
    rows = next((r for r in range(isqrt(count), 1, -1) if count % r == 0), 0)
    if not rows:
        raise refuse("gossip", f"{count} workers make no torus", "a product of two numbers above 1")
    columns = count // rows
    return [
        {(r + dr) % rows * columns + (c + dc) % columns for dr, dc in ((1, 0), (-1, 0), (0, 1), (0, -1))}
        - {r * columns + c}
        for r in range(rows)
        for c in range(columns)
    ]
