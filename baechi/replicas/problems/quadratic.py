"""Quadratics: f_i(x) = 1/2 sum_j h_j (x_j - u_ij)^2, whose optimum and curvature are known."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from baechi.errors import BaechiError
from baechi.replicas.problems.base import draw, generator, starting

__all__ = ["Quadratic"]


class Quadratic:
    """Each worker's own bowl; the loss is their mean.

    Args:
        workers: how many.
        size: d.
        condition: the largest curvature, 1, over the smallest; between them they are spaced by equal ratios.
        heterogeneity: the standard deviation of the workers' optima around a common one.
        spread: each worker's curvatures differ by factors exp(spread N(0, 1)) from the common ones.
        noise: the standard deviation of each coordinate of a gradient of one example.
        seed: of all draws.
        device: where the vectors are.
        dtype: of the vectors.

    Raises:
        BaechiError: B820 when an option is out of its range.

    Example:
        >>> q = Quadratic(workers=4, size=3, condition=100.0)
        >>> sum(q.gradient(q.optimum, i, 0)[1] for i in range(4)).abs().max().item() < 1e-12
        True
    """

    name = "quadratic"
    steps_per_epoch = 1

    def __init__(
        self,
        workers: int = 8,
        *,
        size: int = 32,
        condition: float = 10.0,
        heterogeneity: float = 1.0,
        spread: float = 0.0,
        noise: float = 0.0,
        seed: int = 0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if workers < 1 or size < 1 or condition < 1 or noise < 0:
            what = f"problem 'quadratic': {workers} workers, size {size}, condition {condition:g}, noise {noise:g}"
            raise BaechiError("B820", what, help="at least 1, 1, 1 and 0")
        self.workers, self.size, self.noise, self.seed = workers, size, noise, seed
        stream = generator(seed)
        curvature = torch.logspace(0, -1, size, base=condition, dtype=torch.float64).expand(workers, size)
        factors = torch.exp(spread * torch.randn(workers, size, generator=stream, dtype=torch.float64))
        common = torch.randn(size, generator=stream, dtype=torch.float64)
        apart = heterogeneity * torch.randn(workers, size, generator=stream, dtype=torch.float64)
        self.hessians = (curvature * factors).to(device, dtype)
        """(workers, d): the diagonals of the workers' Hessians."""
        self.centres = (common + apart).to(device, dtype)
        """(workers, d): their optima."""

    @property
    def optimum(self) -> Tensor:
        """Where the mean loss is smallest, (d,): sum_i h_i u_i / sum_i h_i."""
        return (self.hessians * self.centres).sum(0) / self.hessians.sum(0)

    def examples(self, worker: int) -> int:
        """As `Problem`."""
        return 1

    def start(self, seed: int = 0) -> Tensor:
        """As `Problem`: N(0, 1) about the origin."""
        drawn = torch.randn(self.size, generator=starting(seed), dtype=torch.float64)
        return drawn.to(self.centres.device, self.centres.dtype)

    def gradient(
        self, x: Tensor, worker: int, step: int, *, batch: int | None = None, flipped: bool = False
    ) -> tuple[float, Tensor]:
        """As `Problem`; flipped, a worker is drawn to the mirror image of its optimum."""
        h, u = self.hessians[worker], self.centres[worker]
        away = x - (-u if flipped else u)
        gradient = h * away
        loss = float(0.5 * (gradient @ away))
        if self.noise:
            drawn = torch.randn(self.size, generator=draw(self.seed, worker, step), dtype=torch.float64)
            gradient = gradient + self.noise / (batch or 1) ** 0.5 * drawn.to(x.device, x.dtype)
        return loss, gradient

    def gradients(self, x: Tensor, workers: Sequence[int], step: int, *, flipped: bool = False) -> Tensor:
        """As `Problem`."""
        return torch.stack([self.gradient(x, worker, step, flipped=flipped)[1] for worker in workers])

    def curvature(self, x: Tensor, v: Tensor, worker: int, step: int, *, batch: int | None = None) -> Tensor:
        """As `Problem`."""
        return self.hessians[worker] * v

    def trial(self, step: int, *, batch: int = 4) -> Callable[[Tensor], float]:
        """As `Problem`: the loss itself."""
        return self.loss

    def loss(self, x: Tensor) -> float:
        """By how much the workers' mean loss is above its smallest."""
        away = x - self.optimum
        return float(0.5 * (self.hessians.mean(0) * away @ away))

    def accuracy(self, x: Tensor) -> float | None:
        """None: nothing is classified."""
        return None
