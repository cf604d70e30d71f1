"""How a batch is split into micro-batches."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from baechi.errors import BaechiError

__all__ = ["split_inputs", "split_tensors"]


def split_tensors(tensors: Sequence[Tensor], count: int, loss: object) -> tuple[Mapping[int, Tensor], ...]:
    """For each micro-batch its part of each tensor that is split, by position.

    Split are the tensors whose first dimension is the batch: that of the first tensor that has dimensions. A
    tensor with another first dimension, or with none, is left whole for every micro-batch.

    Args:
        tensors: all that a step takes, arguments before the target.
        count: number of micro-batches; with 1 nothing is split.
        loss: that of the step, or None.

    Raises:
        BaechiError: B708 when there is no batch, or it is no multiple of `count`; B709 when the step has no loss.

    Example:
        >>> import torch
        >>> [sorted(part) for part in split_tensors([torch.ones(()), torch.ones(8, 3), torch.ones(8)], 2, torch.sum)]
        [[1, 2], [1, 2]]
    """
    if count < 1:
        raise BaechiError("B708", f"{count} is no number of micro-batches", help="a whole number from 1 on")
    if count == 1:
        return ({},)
    if loss is None:
        raise BaechiError(
            "B709",
            "a step without a loss of its own has no micro-batches",
            help="give the loss and the optimiser: plan(model, args, loss=…, optimizer=…, microbatches=…)",
        )
    batch = next((t.shape[0] for t in tensors if t.dim()), None)
    if batch is None:
        raise BaechiError("B708", "no input is a batch that could be split", help="give example tensors as args")
    if batch % count or not batch:
        raise BaechiError(
            "B708",
            f"a batch of {batch} cannot be split into {count} equal micro-batches",
            help="the batch is the first dimension of the first input: make it a multiple",
        )
    split = [i for i, t in enumerate(tensors) if t.dim() and t.shape[0] == batch]
    size = batch // count
    return tuple({i: tensors[i].narrow(0, k * size, size) for i in split} for k in range(count))


def split_inputs(inputs: Any, count: int, loss: object) -> tuple[Any, ...]:
    """The inputs of each micro-batch, nested as those of the whole batch are; see `split_tensors`.

    Example:
        >>> import torch
        >>> split_inputs((torch.arange(4), 7), 2, torch.sum)
        ((tensor([0, 1]), 7), (tensor([2, 3]), 7))
    """
    leaves, spec = pytree.tree_flatten(inputs)
    positions = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    found = []
    for part in split_tensors([leaves[i] for i in positions], count, loss):
        own = {positions[i]: t for i, t in part.items()}
        found.append(pytree.tree_unflatten([own.get(i, leaf) for i, leaf in enumerate(leaves)], spec))
    return tuple(found)
