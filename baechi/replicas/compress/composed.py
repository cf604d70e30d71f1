"""A compressor of what another one chose (QSparse-local-SGD's composed operators, Basu et al., NeurIPS 2019)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from baechi.replicas.compress.base import Compressor, Key

__all__ = ["Composed"]


_INNER = 1000
"""Above all uses of a step, so that the two choose independently."""


@dataclass(frozen=True, slots=True)
class Composed:
    """`inner` of the elements that `outer` sends; delta is the product of theirs, where `outer` chooses at random.

    Attributes:
        outer: sends some elements as they are, the same on all workers: random-block or random-k.
        inner: any.
    """

    outer: Compressor
    inner: Compressor

    @property
    def shared(self) -> bool:
        """As `Compressor`."""
        return self.inner.shared

    def encode(self, v: Tensor, key: Key) -> Tensor:
        """As `Compressor`."""
        return self.inner.encode(self.outer.encode(v, key), _of_inner(key))

    def decode(self, sent: Tensor, size: int, dtype: torch.dtype, key: Key) -> Tensor:
        """As `Compressor`."""
        chosen = self.inner.decode(sent, self._chosen(size, dtype.itemsize), dtype, _of_inner(key))
        return self.outer.decode(chosen, size, dtype, key)

    def nbytes(self, size: int, itemsize: int) -> int:
        """As `Compressor`."""
        return self.inner.nbytes(self._chosen(size, itemsize), itemsize)

    def contraction(self, size: int) -> float:
        """As `Compressor`."""
        return self.outer.contraction(size) * self.inner.contraction(self._chosen(size, 1))

    def _chosen(self, size: int, itemsize: int) -> int:
        return self.outer.nbytes(size, itemsize) // itemsize


def _of_inner(key: Key) -> Key:
    return key._replace(use=key.use + _INNER)
