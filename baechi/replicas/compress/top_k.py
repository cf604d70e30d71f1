"""The largest elements of each tensor, with their indices (EF-SGD, QSparse-local-SGD, CHOCO)."""

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from baechi.replicas.compress.base import Key, OneOf

__all__ = ["TopK"]

_INDEX_BYTES = 4


@dataclass(frozen=True, slots=True)
class TopK(OneOf):
    """k = ceil(d / ratio) elements of the largest magnitude: |C(v) - v|^2 <= (1 - k/d) |v|^2, always.

    On the wire each is its value and 4 bytes of index.
    """

    shared = False

    def encode(self, v: Tensor, key: Key) -> Tensor:
        """As `Compressor`."""
        chosen = v.abs().topk(ceil(len(v) / self.ratio), sorted=False).indices
        return torch.cat([v[chosen].view(torch.uint8), chosen.to(torch.int32).view(torch.uint8)])

    def decode(self, sent: Tensor, size: int, dtype: torch.dtype, key: Key) -> Tensor:
        """As `Compressor`."""
        split = ceil(size / self.ratio) * dtype.itemsize
        values, chosen = sent[:split].clone().view(dtype), sent[split:].clone().view(torch.int32)
        v = values.new_zeros(size)
        v[chosen.long()] = values
        return v

    def nbytes(self, size: int, itemsize: int) -> int:
        """As `Compressor`."""
        return ceil(size / self.ratio) * (itemsize + _INDEX_BYTES)

    def contraction(self, size: int) -> float:
        """As `Compressor`."""
        return ceil(size / self.ratio) / size
