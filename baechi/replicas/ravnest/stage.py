"""A stage of an asynchronous pipeline: a part of a model that computes gradients at the weights it went forward with.

Forward keeps no activations: it remembers the version of the weights, the state of the random numbers, its inputs and
buffers. Backward puts these back, computes forward again, and applies the gradient to the weights of now. Old weights
are copied only when an update would overwrite what somebody still needs.

Source: Menon et al., "Ravnest" (2401.01728), zero-bubble asynchronous model parallelism; weight stashing as in
Narayanan et al., "PipeDream" (2019).
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from baechi.errors import BaechiError

__all__ = ["Loss", "Stage", "Tensors"]

Tensors: TypeAlias = tuple[Tensor, ...]
Loss: TypeAlias = Callable[..., Tensor]

_TORCH_RANDOM = threading.Lock()
"""Held while a stage draws: torch has one generator for all threads."""


@dataclass(slots=True)
class _Gone:
    """What a micro-batch that went forward needs to come back."""

    version: int
    inputs: Tensors
    buffers: dict[str, Tensor]
    random: Tensor


class Stage:
    """One part of a model with its optimiser.

    Args:
        module: the part; its outputs are the next part's inputs.
        optimizer: makes the optimiser of its parameters.
        loss: of the last part: ``loss(*outputs, target)``; None elsewhere.
        update_every: micro-batches whose mean gradient makes one update; the same in all stages of a model.
        draws: whether the part takes random numbers; where threads carry the stages, those that do take turns.

    Attributes:
        version: how many updates its weights have had.
        staleness: of each gradient, updates between its weights and those that it was applied to.

    Raises:
        BaechiError: B858 when `update_every` is below 1.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        loss: Loss | None = None,
        update_every: int = 1,
        *,
        draws: bool = True,
    ) -> None:
        if update_every < 1:
            raise BaechiError("B858", f"an update every {update_every} micro-batches is none", help="1 or more")
        self.module, self.loss = module, loss
        self.parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.optimizer = optimizer(self.parameters.values()) if self.parameters else None
        self.update_every, self._added = update_every, 0
        self._random, self._draw = torch.get_rng_state(), draws
        self._gone: dict[int, _Gone] = {}
        self._old: dict[int, dict[str, Tensor]] = {}
        self.version = 0
        self.staleness: list[int] = []

    @property
    def outstanding(self) -> int:
        """Micro-batches that went forward and have not come back."""
        return len(self._gone)

    @property
    def stashed(self) -> int:
        """Old versions of the weights that are kept."""
        return len(self._old)

    def state(self) -> dict[str, Any]:
        """What it needs to go on besides weights and buffers, while no micro-batch is under way."""
        optimizer = None if self.optimizer is None else self.optimizer.state_dict()
        return {"optimizer": optimizer, "random": self._random, "version": self.version}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        self._random, self.version = state["random"], state["version"]

    def weights(self, version: int) -> dict[str, Tensor]:
        """The trained parameters as they were at a version that somebody still needs, or now; not to be changed."""
        return self._old.get(version) or dict(self.parameters)

    def forward(self, micro: int, inputs: Tensors) -> Tensors:
        """Compute a micro-batch's outputs, without a graph."""
        buffers = {name: b.clone() for name, b in self.module.named_buffers()}
        self._gone[micro] = _Gone(self.version, inputs, buffers, self._random)
        with torch.no_grad(), self._draws(self._random, keep=True):
            return _tuple(self.module(*inputs))

    def backward(self, micro: int, gradients: Tensors, *, inward: bool = True) -> Tensors:
        """From the gradients of a micro-batch's outputs to those of its inputs; its weights are updated.

        Args:
            micro: which micro-batch.
            gradients: of each output.
            inward: whether the gradients of the inputs are wanted.

        Raises:
            BaechiError: B858 on a micro-batch that did not go forward.
        """
        gone = self._gone.pop(micro, None)
        if gone is None:
            raise BaechiError("B858", f"micro-batch {micro} comes back to a stage that it did not pass")
        weights = {n: w.detach().requires_grad_() for n, w in self.weights(gone.version).items()}
        inputs = _leaves(gone.inputs, inward)
        with self._draws(gone.random, keep=False):
            outputs = _tuple(functional_call(self.module, {**weights, **gone.buffers}, inputs))
        found = self._gradients(gone.version, outputs, gradients, weights, inputs)
        needed = {one.version for one in self._gone.values()}
        self._old = {version: old for version, old in self._old.items() if version in needed}
        return found

    def finish(self, micro: int, inputs: Tensors, target: Any, *, inward: bool = True) -> tuple[float, Tensors]:
        """Forward, loss and backward of a micro-batch in the last stage: the loss, and the gradients of the inputs.

        Nothing comes between, so nothing is computed again.

        Raises:
            BaechiError: B858 without a loss.
        """
        if self.loss is None:
            raise BaechiError("B858", "the last stage has no loss", help="give Stage(…, loss=…)")
        inputs = _leaves(inputs, inward)
        with self._draws(self._random, keep=True):
            loss = self.loss(*_tuple(self.module(*inputs)), target)
        share = (torch.full_like(loss, 1 / self.update_every),)
        return float(loss.detach()), self._gradients(self.version, (loss,), share, dict(self.parameters), inputs)

    def _gradients(
        self, version: int, outputs: Tensors, gradients: Tensors, weights: dict[str, Tensor], inputs: Tensors
    ) -> Tensors:
        """Apply the weights' gradients; give those of the inputs, zeros where nothing flows."""
        wanted = [x for x in inputs if x.requires_grad]
        leaves = [*weights.values(), *wanted]
        flowing = [(o, g) for o, g in zip(outputs, gradients, strict=True) if o.requires_grad]
        found: Sequence[Tensor | None] = [None] * len(leaves)
        if flowing and leaves:
            ends, starts = zip(*flowing, strict=True)
            found = torch.autograd.grad(ends, leaves, starts, allow_unused=True)
        self._apply(version, dict(zip(weights, found, strict=False)))
        back = dict(zip(map(id, wanted), found[len(weights) :], strict=True))
        return tuple(torch.zeros_like(x) if (g := back.get(id(x))) is None else g for x in inputs)

    def _apply(self, version: int, gradients: Mapping[str, Tensor | None]) -> None:
        self.staleness.append(self.version - version)
        for name, gradient in gradients.items():
            parameter = self.parameters[name]
            if gradient is None:
                continue
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        self._added += 1
        if self._added == self.update_every:
            self._update()

    def _update(self) -> None:
        if any(gone.version == self.version for gone in self._gone.values()):
            self._old[self.version] = {n: p.detach().clone() for n, p in self.parameters.items()}
        if self.optimizer is not None:
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.version += 1
        self._added = 0

    @contextmanager
    def _draws(self, state: Tensor, *, keep: bool) -> Iterator[None]:
        """Random numbers from a state on; where they end is where the stage's next ones begin, if kept."""
        if not self._draw:
            yield
            return
        with _TORCH_RANDOM, torch.random.fork_rng(devices=[]):
            torch.set_rng_state(state)
            yield
            if keep:
                self._random = torch.get_rng_state()


def _tuple(value: Tensor | Tensors) -> Tensors:
    return (value,) if isinstance(value, Tensor) else tuple(value)


def _leaves(inputs: Tensors, inward: bool) -> Tensors:
    return tuple(x.detach().requires_grad_(inward and x.is_floating_point()) for x in inputs)
