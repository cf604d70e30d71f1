"""A few bits of each element, rounded at random so that the mean is right (Alistarh et al., QSGD, 2017)."""

from dataclasses import dataclass
from math import sqrt
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from baechi.replicas.compress.base import Key
from baechi.replicas.compress.bits import pack, packed_nbytes, unpack

__all__ = ["Qsgd"]

_BUCKET = 32


@dataclass(frozen=True, slots=True)
class Qsgd:
    """s = 2^(bits-1) - 1 levels of |v|_2, of each bucket of elements by itself, with signs.

    E C(v) = v and E|C(v) - v|^2 <= omega |v|^2, omega = min(n / s^2, sqrt(n) / s) for a bucket of n (lemma 3.1).
    Shrunk by 1 / (1 + omega) it is a contraction with delta = 1 / (1 + omega), and no longer unbiased; error
    feedback needs one. On the wire: an element for each bucket's norm, and the bits.

    Attributes:
        bits: of an element: 2, 4 or 8.
        shrunk: whether to multiply by 1 / (1 + omega).
        bucket: elements that share a norm.
    """

    bits: int = 4
    shrunk: bool = False
    bucket: int = _BUCKET
    shared = False

    @classmethod
    def parse(cls, bits: str = "4", shrunk: str = "") -> Self:
        """From text.

        Raises:
            ValueError: when the bits are not 2, 4 or 8, or what follows is not `shrunk`.
        """
        if int(bits) not in (2, 4, 8) or shrunk not in ("", "shrunk"):
            raise ValueError(bits)
        return cls(int(bits), bool(shrunk))

    @property
    def levels(self) -> int:
        """s."""
        return (1 << (self.bits - 1)) - 1

    @property
    def omega(self) -> float:
        """The bound on the variance."""
        return min(self.bucket / (self.levels * self.levels), sqrt(self.bucket) / self.levels)

    def encode(self, v: Tensor, key: Key) -> Tensor:
        """As `Compressor`."""
        rows = functional.pad(v, (0, -len(v) % self.bucket)).view(-1, self.bucket)
        norms = rows.norm(dim=1)
        draws = torch.rand(len(v), generator=key.generator(), dtype=v.dtype).to(v.device)
        scaled = (rows / norms.clamp_min(torch.finfo(v.dtype).tiny)[:, None]).flatten()[: len(v)] * self.levels
        levels = (scaled + draws).floor().clamp(-self.levels, self.levels)
        return torch.cat([norms.view(torch.uint8), pack((levels + self.levels).to(torch.uint8), self.bits)])

    def decode(self, sent: Tensor, size: int, dtype: torch.dtype, key: Key) -> Tensor:
        """As `Compressor`."""
        split = self._buckets(size) * dtype.itemsize
        norms = sent[:split].clone().view(dtype).repeat_interleave(self.bucket)[:size]
        levels = unpack(sent[split:], size, self.bits).to(dtype) - self.levels
        scale = self.levels * (1 + self.omega) if self.shrunk else self.levels
        return norms * levels / scale

    def nbytes(self, size: int, itemsize: int) -> int:
        """As `Compressor`."""
        return self._buckets(size) * itemsize + packed_nbytes(size, self.bits)

    def contraction(self, size: int) -> float:
        """As `Compressor`."""
        return 1 / (1 + self.omega) if self.shrunk else max(0.0, 1 - self.omega)

    def _buckets(self, size: int) -> int:
        return -(-size // self.bucket)
