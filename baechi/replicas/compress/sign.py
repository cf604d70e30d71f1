"""One bit of each element, and their mean magnitude."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from baechi.replicas.compress.base import Key
from baechi.replicas.compress.bits import pack, packed_nbytes, unpack

__all__ = ["Sign"]


@dataclass(frozen=True, slots=True)
class Sign:
    """C(v) = |v|_1 / d * sign(v): |C(v) - v|^2 = |v|^2 - |v|_1^2 / d, so delta is 1/d at worst.

    Near 2/pi for a vector of normal elements. The sign of 0 is plus. On the wire: d bits and one element.
    """

    shared = False

    @classmethod
    def parse(cls) -> Self:
        """Takes nothing."""
        return cls()

    def encode(self, v: Tensor, key: Key) -> Tensor:
        """As `Compressor`."""
        return torch.cat([v.abs().mean().view(1).view(torch.uint8), pack((v >= 0).to(torch.uint8), 1)])

    def decode(self, sent: Tensor, size: int, dtype: torch.dtype, key: Key) -> Tensor:
        """As `Compressor`."""
        scale = sent[: dtype.itemsize].clone().view(dtype)
        return scale * (2 * unpack(sent[dtype.itemsize :], size, 1).to(dtype) - 1)

    def nbytes(self, size: int, itemsize: int) -> int:
        """As `Compressor`."""
        return itemsize + packed_nbytes(size, 1)

    def contraction(self, size: int) -> float:
        """As `Compressor`."""
        return 1.0 / size
