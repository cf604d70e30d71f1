"""Train the model as it is, in eager torch and with no plan: what a placed run is compared with."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from baechi.backends.limits import allocations
from baechi.frontends.pytorch.batches import split_inputs
from baechi.frontends.pytorch.modules import evaluate_loss
from baechi.frontends.pytorch.optimizers import optimizer_spec
from baechi.profile.measured import PLAIN_DEVICE, Measured, summarize

__all__ = ["limit_threads", "train_plain"]


def limit_threads(count: int) -> None:
    """Let torch compute with so many threads from here on."""
    torch.set_num_threads(count)


def train_plain(
    build: Callable[[], torch.nn.Module],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    target: Any = None,
    *,
    loss: Callable[..., Any] | str | None = "output",
    optimizer: str | type[torch.optim.Optimizer] | torch.optim.Optimizer | None = "sgd",
    optimizer_options: Mapping[str, Any] | None = None,
    steps: int,
    warmup: int = 1,
    seed: int = 0,
    memory: bool = True,
    microbatches: int = 1,
) -> Measured:
    """Build a module and train it some steps on one batch, in the calling thread.

    Seeds, loss and optimiser are those of a placed run, and so are the losses. The module that
    `build` returns is itself trained.

    Args:
        build: makes the module; its weights are drawn from `seed`.
        args, kwargs, target: inputs of every step.
        loss: as for `capture`.
        optimizer: name, class or instance; `optimizer_options` over it.
        steps: how many are timed, at least 1.
        warmup: how many come before.
        seed: of weights and dropout.
        memory: whether one more step measures the peak of parameters, buffers, inputs, optimiser
            state and all that the step allocates.
        microbatches: into how many the batch is split; their gradients add up before the update.

    Raises:
        BaechiError: B704 on a bad loss or optimiser, B708 and B709 as `capture`.

    Example:
        >>> measured = train_plain(lambda: torch.nn.Linear(3, 2), (torch.ones(4, 3),), loss=torch.sum, steps=2)
        >>> len(measured.losses), measured.peak_bytes["cpu"] >= 4 * (3 * 2 + 2) + 4 * 4 * 3
        (3, True)
    """
    torch.manual_seed(seed)
    module = build()
    spec = optimizer_spec(optimizer, optimizer_options, module)
    updater = spec.make(dict(module.named_parameters())) if spec is not None else None
    parts = split_inputs((tuple(args), dict(kwargs or {}), target), microbatches, loss)

    def step() -> float | None:
        module.zero_grad()
        values = [_backward(module, part, loss, microbatches) for part in parts]
        if updater is not None:
            updater.step()
        return None if loss is None else (sum(values[1:], start=values[0]) / microbatches).item()

    losses: list[float] = []
    seconds: list[float] = []
    for i in range(warmup + steps):
        start = time.perf_counter()
        value = step()
        if i >= warmup:
            seconds.append(time.perf_counter() - start)
        if value is not None:
            losses.append(value)
    peaks = {}
    if memory:
        module.zero_grad()
        state = updater.state if updater is not None else {}
        held = _nbytes(
            [dict(module.named_parameters()), dict(module.named_buffers()), list(state.values()), args, kwargs, target]
        )
        with allocations() as found:
            step()
        peaks[PLAIN_DEVICE] = held + found.peak_bytes
    return summarize(seconds, losses, peaks)


def _backward(module: torch.nn.Module, given: Any, loss: Callable[..., Any] | str | None, parts: int) -> Tensor:
    """Add the gradients of one micro-batch; returns its loss, or zero without one."""
    args, kwargs, target = given
    output = module(*args, **kwargs)
    if loss is None:
        _backward_ones(output)
        return torch.zeros(())
    scalar = evaluate_loss(loss, output, target, with_target=target is not None)
    (scalar / parts if parts > 1 else scalar).backward()  # type: ignore[no-untyped-call]
    return scalar.detach()


def _backward_ones(output: Any) -> None:
    """Without a loss, the gradient of each output is ones."""
    outputs = [t for t in pytree.tree_leaves(output) if isinstance(t, Tensor) and t.requires_grad]
    torch.autograd.backward(outputs, [torch.ones_like(t) for t in outputs])


def _nbytes(values: Any) -> int:
    """Bytes of the tensors in `values`, each memory once."""
    storages = {}
    for tensor in pytree.tree_leaves(values):
        if isinstance(tensor, Tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(storages.values())
