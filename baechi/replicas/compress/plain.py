"""The two ends: all is sent, and nothing is."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from baechi.replicas.compress.base import Key

__all__ = ["Identity", "Nothing"]


@dataclass(frozen=True, slots=True)
class Identity:
    """C(v) = v."""

    shared = True

    @classmethod
    def parse(cls) -> Self:
        """Takes nothing."""
        return cls()

    def encode(self, v: Tensor, key: Key) -> Tensor:
        """As `Compressor`."""
        return v

    def decode(self, sent: Tensor, size: int, dtype: torch.dtype, key: Key) -> Tensor:
        """As `Compressor`."""
        return sent

    def nbytes(self, size: int, itemsize: int) -> int:
        """As `Compressor`."""
        return size * itemsize

    def contraction(self, size: int) -> float:
        """As `Compressor`."""
        return 1.0


@dataclass(frozen=True, slots=True)
class Nothing:
    """C(v) = 0: what a ratio of infinity is."""

    shared = True

    @classmethod
    def parse(cls) -> Self:
        """Takes nothing."""
        return cls()

    def encode(self, v: Tensor, key: Key) -> Tensor:
        """As `Compressor`."""
        return v[:0]

    def decode(self, sent: Tensor, size: int, dtype: torch.dtype, key: Key) -> Tensor:
        """As `Compressor`."""
        return sent.new_zeros(size)

    def nbytes(self, size: int, itemsize: int) -> int:
        """As `Compressor`."""
        return 0

    def contraction(self, size: int) -> float:
        """As `Compressor`."""
        return 0.0
