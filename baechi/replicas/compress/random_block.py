"""One contiguous block of each tensor, the same on every worker: an all-reduce takes it as it is (CSER's)."""

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from baechi.replicas.compress.base import Key, OneOf

__all__ = ["RandomBlock"]


@dataclass(frozen=True, slots=True)
class RandomBlock(OneOf):
    """A block of ceil(d / ratio) elements that begins anywhere and goes around the end.

    Every element is in it with the same probability, so E|C(v) - v|^2 = (1 - delta) |v|^2 exactly,
    delta = ceil(d / ratio) / d. Where it begins is a hash of the key's seed, step, use and tensor: no worker
    has to be told.
    """

    shared = True

    def encode(self, v: Tensor, key: Key) -> Tensor:
        """As `Compressor`."""
        begin, length, rest = self._block(len(v), key)
        return torch.cat([v[begin : begin + length], v[:rest]]) if rest else v[begin : begin + length]

    def decode(self, sent: Tensor, size: int, dtype: torch.dtype, key: Key) -> Tensor:
        """As `Compressor`."""
        begin, length, rest = self._block(size, key)
        v = sent.new_zeros(size)
        v[begin : begin + length] = sent[:length]
        v[:rest] = sent[length:]
        return v

    def nbytes(self, size: int, itemsize: int) -> int:
        """As `Compressor`."""
        return ceil(size / self.ratio) * itemsize

    def contraction(self, size: int) -> float:
        """As `Compressor`."""
        return ceil(size / self.ratio) / size

    def _block(self, size: int, key: Key) -> tuple[int, int, int]:
        """Where it begins, how many elements follow to the end at most, and how many come from the front."""
        length = ceil(size / self.ratio)
        begin = key._replace(worker=-1).number() % size
        here = min(length, size - begin)
        return begin, here, length - here
