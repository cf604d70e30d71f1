"""Some elements of each tensor, the same on every worker: their indices are drawn, not sent."""

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from baechi.replicas.compress.base import Key, OneOf

__all__ = ["RandomK"]


@dataclass(frozen=True, slots=True)
class RandomK(OneOf):
    """k = ceil(d / ratio) elements: E|C(v) - v|^2 = (1 - k/d) |v|^2."""

    shared = True

    def encode(self, v: Tensor, key: Key) -> Tensor:
        """As `Compressor`."""
        return v[self._chosen(len(v), key).to(v.device)]

    def decode(self, sent: Tensor, size: int, dtype: torch.dtype, key: Key) -> Tensor:
        """As `Compressor`."""
        v = sent.new_zeros(size)
        v[self._chosen(size, key).to(sent.device)] = sent
        return v

    def nbytes(self, size: int, itemsize: int) -> int:
        """As `Compressor`."""
        return ceil(size / self.ratio) * itemsize

    def contraction(self, size: int) -> float:
        """As `Compressor`."""
        return ceil(size / self.ratio) / size

    def _chosen(self, size: int, key: Key) -> Tensor:
        order = torch.randperm(size, generator=key._replace(worker=-1).generator())
        return order[: ceil(size / self.ratio)]
