"""Linear regression: y = a . w_i + noise, where each worker may have a truth of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from baechi.errors import BaechiError
from baechi.replicas.problems.base import Examples, Learner, generator, starting

__all__ = ["Regression"]


class Regression(Learner):
    """Half the squared error of a linear model.

    Args:
        workers: how many.
        size: d, features of an example.
        examples: of each worker; as many are held out.
        heterogeneity: the standard deviation of the workers' truths around the common one.
        noise: the standard deviation of y.
        batch: examples of a gradient.
        seed: of all draws.
        device: where the data is.
        dtype: of the data and the vectors.

    Raises:
        BaechiError: B820 when an option is out of its range.

    Example:
        >>> r = Regression(workers=2, size=3, noise=0.0)
        >>> r.loss(r.truth) < 1e-20 < r.loss(r.start())
        True
    """

    def __init__(
        self,
        workers: int = 8,
        *,
        size: int = 16,
        examples: int = 200,
        heterogeneity: float = 0.0,
        noise: float = 0.1,
        batch: int = 16,
        seed: int = 0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if workers < 1 or size < 1 or examples < 1:
            what = f"problem 'regression': {workers} workers, size {size}, {examples} examples"
            raise BaechiError("B820", what, help="at least 1 of each")
        stream = generator(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=stream, dtype=torch.float64).to(device, dtype)

        self.truth = normal(size)
        """The common truth, (d,), by which the held-out examples were made."""
        truths = torch.cat((self.truth + heterogeneity * normal(workers, size), self.truth[None]))
        inputs = normal(workers + 1, examples, size)
        targets = torch.einsum("wed,wd->we", inputs, truths) + noise * normal(workers + 1, examples)
        train = Examples(inputs[:-1].reshape(-1, size), targets[:-1].reshape(-1))
        parts = torch.split(torch.arange(workers * examples), examples)
        test = Examples(inputs[-1], targets[-1])
        super().__init__("regression", [(size,)], parts, train, test, batch=batch, seed=seed, dtype=dtype)

    def start(self, seed: int = 0) -> Tensor:
        """As `Problem`: N(0, 1)."""
        drawn = torch.randn(self.size, generator=starting(seed), dtype=torch.float64)
        return drawn.to(self.device, self.dtype)

    def outputs(self, tensors: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """As `Learner`."""
        return inputs @ tensors[0]

    def penalty(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """As `Learner`."""
        return 0.5 * (outputs - targets).square().mean()

    def flip(self, targets: Tensor) -> Tensor:
        """As `Learner`: the other sign."""
        return -targets
