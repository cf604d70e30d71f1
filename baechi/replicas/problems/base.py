"""What a training problem is to an algorithm: gradients of flat vectors, each on one worker's own data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from baechi.errors import BaechiError

__all__ = ["Examples", "Learner", "Problem", "draw", "generator", "starting"]

_START = 1
_NOBODY = 0
"""In the place of a worker's number, plus one, for what is drawn for nobody."""


class Problem(Protocol):
    """A loss to be made small by some workers, each with its own data.

    All that is drawn is a function of the problem's `seed`, the worker and the step, so that two
    algorithms that are compared see the same data.
    """

    @property
    def name(self) -> str:
        """As `problem` takes it."""

    @property
    def size(self) -> int:
        """d: the parameters in a vector."""

    @property
    def workers(self) -> int:
        """How many have data: workers are numbered from 0."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the default batch in which a worker sees as many examples as it has."""

    def examples(self, worker: int) -> int:
        """How many a worker has; 1 where they are drawn without end."""

    def start(self, seed: int = 0) -> Tensor:
        """Parameters to begin with, (d,)."""

    def gradient(
        self, x: Tensor, worker: int, step: int, *, batch: int | None = None, flipped: bool = False
    ) -> tuple[float, Tensor]:
        """Loss and gradient, (d,), at `x` on the worker's examples of a step.

        Args:
            x: parameters (d,); not changed.
            worker: whose data.
            step: which draw of them.
            batch: examples; the problem's default when None.
            flipped: with false labels, as a hostile worker would have them.
        """

    def gradients(self, x: Tensor, workers: Sequence[int], step: int, *, flipped: bool = False) -> Tensor:
        """(workers, d): the gradients of some workers, to rounding as `gradient`, but faster."""

    def curvature(self, x: Tensor, v: Tensor, worker: int, step: int, *, batch: int | None = None) -> Tensor:
        """The Hessian at `x` times `v`, (d,), on the same examples as `gradient`."""

    def trial(self, step: int, *, batch: int = 4) -> Callable[[Tensor], float]:
        """A loss on a few fresh examples of everyone's distribution: what a server trusts (Zeno's)."""

    def loss(self, x: Tensor) -> float:
        """Loss on data that nobody trains on."""

    def accuracy(self, x: Tensor) -> float | None:
        """Share of those classified right, 0 to 1; None where nothing is classified."""


def generator(*key: int) -> torch.Generator:
    """A generator on the CPU whose stream is a function of some non-negative numbers.

    Example:
        >>> torch.equal(torch.rand(3, generator=generator(1, 2)), torch.rand(3, generator=generator(1, 2)))
        True
    """
    low, high = np.random.SeedSequence((len(key), *key)).generate_state(2)  # which takes (0,) for (0, 0)
    return torch.Generator().manual_seed(int(low) | int(high & 0x7FFFFFFF) << 32)


def starting(seed: int) -> torch.Generator:
    """The generator of `Problem.start`: another than that of data with the same seed."""
    return generator(_START, seed, 0, 0)


def draw(seed: int, worker: int | None, step: int) -> torch.Generator:
    """The generator of a worker's step; of nobody's when None."""
    return generator(seed, _NOBODY if worker is None else worker + 1, step)


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Inputs and what should come out, by example; both on the problem's device."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, chosen: Tensor) -> "Examples":
        return Examples(self.inputs[chosen], self.targets[chosen])


class Learner:
    """A problem that is a model and its examples: subclasses say what the model does.

    Args:
        name: of the problem.
        shapes: of the model's tensors; the vector has them one after another.
        parts: each worker's examples, by index into `train`.
        train: all examples that somebody trains on.
        test: those of `loss` and `accuracy`.
        batch: examples of a gradient.
        seed: of all draws.
        dtype: of the vector.
    """

    def __init__(
        self,
        name: str,
        shapes: Sequence[tuple[int, ...]],
        parts: Sequence[Tensor],
        train: Examples,
        test: Examples,
        *,
        batch: int,
        seed: int,
        dtype: torch.dtype,
    ) -> None:
        self.name, self.workers, self.seed, self.batch = name, len(parts), seed, batch
        self.shapes, self.parts, self.train, self.test = tuple(shapes), tuple(parts), train, test
        self.dtype, self.device = dtype, train.inputs.device
        self._sizes = [prod(shape) for shape in shapes]
        self.size = sum(self._sizes)
        if batch < 1:
            raise BaechiError("B820", f"problem '{name}': a batch of {batch} examples")

    @property
    def steps_per_epoch(self) -> int:
        """As `Problem`."""
        return max(1, min(len(part) for part in self.parts) // self.batch)

    def examples(self, worker: int) -> int:
        """As `Problem`."""
        return len(self.parts[worker])

    def outputs(self, tensors: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """What the model says, (examples, …)."""
        raise NotImplementedError

    def penalty(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of outputs."""
        raise NotImplementedError

    def flip(self, targets: Tensor) -> Tensor:
        """The false labels of a hostile worker."""
        raise NotImplementedError

    def gradient(
        self, x: Tensor, worker: int, step: int, *, batch: int | None = None, flipped: bool = False
    ) -> tuple[float, Tensor]:
        """As `Problem`."""
        x = x.detach().requires_grad_()
        loss = self._loss(x, self._examples(worker, step, batch, flipped))
        (gradient,) = torch.autograd.grad(loss, x)
        return float(loss.detach()), gradient

    def gradients(self, x: Tensor, workers: Sequence[int], step: int, *, flipped: bool = False) -> Tensor:
        """As `Problem`: as one batch of batches."""
        drawn = [self._examples(worker, step, None, flipped) for worker in workers]
        if not drawn:
            return x.new_empty(0, len(x))

        def loss(x: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
            return self._loss(x, Examples(inputs, targets))

        inputs, targets = torch.stack([d.inputs for d in drawn]), torch.stack([d.targets for d in drawn])
        found: Tensor = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(x.detach(), inputs, targets)
        return found

    def curvature(self, x: Tensor, v: Tensor, worker: int, step: int, *, batch: int | None = None) -> Tensor:
        """As `Problem`: two passes back."""
        x = x.detach().requires_grad_()
        loss = self._loss(x, self._examples(worker, step, batch, flipped=False))
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        (product,) = torch.autograd.grad(gradient @ v, x)
        return product

    def trial(self, step: int, *, batch: int = 4) -> Callable[[Tensor], float]:
        """As `Problem`."""
        chosen = torch.randint(len(self.train), (batch,), generator=draw(self.seed, None, step))
        examples = self.train[chosen.to(self.device)]

        def loss(x: Tensor) -> float:
            with torch.no_grad():
                return float(self._loss(x, examples))

        return loss

    def loss(self, x: Tensor) -> float:
        """As `Problem`."""
        with torch.no_grad():
            return float(self._loss(x, self.test))

    def accuracy(self, x: Tensor) -> float | None:
        """As `Problem`."""
        if self.test.targets.is_floating_point():
            return None
        with torch.no_grad():
            said = self.outputs(self.tensors(x), self.test.inputs).argmax(-1)
        return float((said == self.test.targets).double().mean())

    def tensors(self, x: Tensor) -> tuple[Tensor, ...]:
        """The model's tensors: views of the vector."""
        return tuple(part.view(shape) for part, shape in zip(torch.split(x, self._sizes), self.shapes, strict=True))

    def _loss(self, x: Tensor, examples: Examples) -> Tensor:
        return self.penalty(self.outputs(self.tensors(x), examples.inputs), examples.targets)

    def _examples(self, worker: int, step: int, batch: int | None, flipped: bool) -> Examples:
        part = self.parts[worker]
        chosen = torch.randint(len(part), (batch or self.batch,), generator=draw(self.seed, worker, step))
        examples = self.train[part[chosen].to(self.device)]
        return Examples(examples.inputs, self.flip(examples.targets)) if flipped else examples
