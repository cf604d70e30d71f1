"""Linear regression on data that differ from peer to peer: the built-in problem of `baechi replicas simulate`."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from baechi.errors import BaechiError
from baechi.replicas.peer import Arrays

__all__ = ["Regression"]

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Regression:
    """Each peer has rows of its own, of a linear model near a common one; the loss is half the mean square error.

    Args:
        peers: how many.
        dimension: of the model.
        rows: of each peer.
        skew: how far a peer's model is from the common one; 0 for data of one distribution.
        noise: standard deviation of the targets.
        batch: rows of a local step.
        local: steps of an update.
        eta: step size.
        seed: of data and batches.

    Example:
        >>> problem = Regression(2, dimension=3, noise=0.0, skew=0.0)
        >>> bool(problem.loss(problem.optimum) < 1e-12)
        True
    """

    peers: int
    dimension: int = 8
    rows: int = 64
    skew: float = 1.0
    noise: float = 0.1
    batch: int = 8
    local: int = 1
    eta: float = 0.05
    seed: int = 0
    features: Floats = field(init=False)
    targets: Floats = field(init=False)
    optimum: Floats = field(init=False)
    curvature: Floats = field(init=False)
    least: float = field(init=False)

    def __post_init__(self) -> None:
        if min(self.dimension, self.rows, self.batch, self.local) < 1 or not self.eta > 0:
            raise BaechiError(
                "B846", "a regression needs a dimension, rows, a batch, local steps and a step size above 0"
            )
        rng = np.random.default_rng((self.seed, 1))
        features = rng.standard_normal((self.peers, self.rows, self.dimension))
        truth = rng.standard_normal(self.dimension) + self.skew * rng.standard_normal((self.peers, self.dimension))
        targets = np.einsum("prd,pd->pr", features, truth)
        targets += self.noise * rng.standard_normal(targets.shape)
        a, b = features.reshape(-1, self.dimension), targets.ravel()
        found = np.linalg.lstsq(a, b, rcond=None)[0]
        least = float(((a @ found - b) ** 2).mean() / 2)
        known = {
            "features": features,
            "targets": targets,
            "optimum": found,
            "curvature": a.T @ a / len(a),
            "least": least,
        }
        for name, value in known.items():
            object.__setattr__(self, name, value)

    def start(self) -> Arrays:
        """The model that all begin with."""
        return (np.zeros(self.dimension),)

    def step(self, peer: int, arrays: Arrays, k: int) -> Arrays:
        """Local steps of stochastic gradient descent; the update's number draws the batches."""
        rng = np.random.default_rng((self.seed, 2, peer, k))
        w = arrays[0]
        for _ in range(self.local):
            rows = rng.integers(self.rows, size=self.batch)
            a = self.features[peer, rows]
            w = w - self.eta / self.batch * (a.T @ (a @ w - self.targets[peer, rows]))
        return (w,)

    def loss(self, model: NDArray[np.floating[Any]]) -> float:
        """Of a model on the rows of all peers: the least, and what the quadratic has above it."""
        off = model - self.optimum
        return self.least + float(off @ self.curvature @ off) / 2
