"""One bit of each element, and their mean magnitude: of a whole tensor, or of each block of it."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from baechi.replicas.compress.base import Key
from baechi.replicas.compress.bits import pack, packed_nbytes, unpack

__all__ = ["Sign"]


@dataclass(frozen=True, slots=True)
class Sign:
    """C(v) = |v|_1 / d * sign(v): |C(v) - v|^2 = |v|^2 - |v|_1^2 / d, so delta is 1/d at worst.

    Near 2/pi for a vector of normal elements. The sign of 0 is plus. On the wire: d bits and one element. In blocks
    (Zheng, Huang and Kwok, 2019) each of B elements has its own scale: delta is 1/B at worst, for d/B elements more.

    Attributes:
        block: B; 0 is the whole tensor.
    """

    block: int = 0

    shared = False

    @classmethod
    def parse(cls, block: str = "0") -> Self:
        """From text.

        Raises:
            ValueError: when the block is no whole number, or below 0.
        """
        if int(block) < 0:
            raise ValueError(block)
        return cls(int(block))

    def encode(self, v: Tensor, key: Key) -> Tensor:
        """As `Compressor`."""
        scales = self._sums(v.abs()) / self._sums(torch.ones_like(v))
        return torch.cat([scales.view(torch.uint8), pack((v >= 0).to(torch.uint8), 1)])

    def decode(self, sent: Tensor, size: int, dtype: torch.dtype, key: Key) -> Tensor:
        """As `Compressor`."""
        split = self._blocks(size) * dtype.itemsize
        scales = sent[:split].clone().view(dtype).repeat_interleave(self.block or size)[:size]
        return scales * (2 * unpack(sent[split:], size, 1).to(dtype) - 1)

    def nbytes(self, size: int, itemsize: int) -> int:
        """As `Compressor`."""
        return self._blocks(size) * itemsize + packed_nbytes(size, 1)

    def contraction(self, size: int) -> float:
        """As `Compressor`."""
        return 1.0 / min(self.block or size, size)

    def _blocks(self, size: int) -> int:
        return -(-size // (self.block or size))

    def _sums(self, v: Tensor) -> Tensor:
        """Of each block; the last may be short."""
        width = self.block or len(v)
        return functional.pad(v, (0, -len(v) % width)).view(-1, width).sum(1)
