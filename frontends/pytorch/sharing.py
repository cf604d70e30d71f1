"""Weights that overlap in memory without being one tensor: a step that holds each on its own would train others."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from baechi.errors import BaechiError

__all__ = ["check_apart"]


def check_apart(parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> None:
    """Check that no parameter shares memory with another weight.

    Args:
        parameters: by name, each tensor once.
        buffers: the same; buffers may share memory among themselves.

    Raises:
        BaechiError: B706 when two share memory.

    Example:
        >>> whole = torch.zeros(4)
        >>> check_apart({"low": whole[:2], "high": whole[2:]}, {"other": torch.zeros(1)})
    """
    spans = sorted(
        (t.data_ptr(), t.data_ptr() + t.numel() * t.element_size(), name, name in parameters)
        for name, t in (*buffers.items(), *parameters.items())
        if _has_memory(t)
    )
    farthest: dict[bool, tuple[int, str]] = {}
    for start, end, name, trained in spans:
        for other in (True, False) if trained else (True,):
            reach, owner = farthest.get(other, (0, ""))
            if start < reach:
                raise BaechiError(
                    "B706",
                    f"'{owner}' and '{name}' share memory, and are not one parameter",
                    help="to tie them, make both names the same nn.Parameter; otherwise give one a clone()",
                )
        farthest[trained] = max(farthest.get(trained, (0, "")), (end, name))


def _has_memory(tensor: Tensor) -> bool:
    """Whether it fills a block of real memory; strided ones may interleave with others and still be apart."""
    if isinstance(tensor, FakeTensor) or tensor.is_meta or tensor.layout != torch.strided:
        return False
    return tensor.numel() > 0 and tensor.is_contiguous()
