"""Tensors that wait in the memory of the host: what ``offload`` and ``fetch`` ops call."""

import mmap
import weakref
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

__all__ = ["fetch", "offload"]

_FREE: defaultdict[int, list[mmap.mmap]] = defaultdict(list)
"""Blocks that no tensor lies in, by size: their pages are there already."""


def offload(tensor: Tensor) -> Tensor:
    """A copy in the memory of the host.

    From a GPU it is pinned, and made when the GPU has come so far. From a device that is a part of this
    machine's processor it lies in a shared mapping, which counts neither as memory of
    torch's allocator nor against the process's cap; the mapping is used again when the copy is gone.

    Example:
        >>> offload(torch.ones(2))
        tensor([1., 1.])
    """
    like = torch.empty_like(tensor, device="meta")
    if tensor.device.type == "cpu" and not isinstance(tensor, FakeTensor):
        block = _block(like.numel() * like.itemsize).view(like.dtype)
        copy = block[: like.numel()].as_strided(like.shape, like.stride())
    else:
        where: dict[str, Any] = {"device": tensor.device} if isinstance(tensor, FakeTensor) else {"pin_memory": True}
        copy = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, **where)
    torch.ops.aten.copy_.default(copy, tensor, True)
    return copy


def fetch(copy: Tensor, device: torch.device) -> Tensor:
    """What was offloaded, on its device again.

    Example:
        >>> fetch(offload(torch.ones(2)), torch.device("cpu"))
        tensor([1., 1.])
    """
    tensor = torch.empty_strided(copy.size(), copy.stride(), dtype=copy.dtype, device=device)
    torch.ops.aten.copy_.default(tensor, copy, True)
    return tensor


def _block(nbytes: int) -> Tensor:
    """That many bytes at least, of a shared mapping that is free again when the tensor is gone."""
    pages = -(-max(nbytes, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
    free = _FREE[pages]
    try:
        block = free.pop()
    except IndexError:
        block = mmap.mmap(-1, pages)
    memory = np.frombuffer(block, np.uint8)
    weakref.finalize(memory, free.append, block).atexit = False
    return torch.from_numpy(memory)
