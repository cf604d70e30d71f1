"""Numbers of 1, 2, 4 or 8 bits in bytes."""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["pack", "packed_nbytes", "unpack"]


def packed_nbytes(size: int, bits: int) -> int:
    """Bytes that `size` numbers of `bits` bits take."""
    return -(-size * bits // 8)


def pack(numbers: Tensor, bits: int) -> Tensor:
    """Numbers below 2^bits, uint8 (n,), in `packed_nbytes` bytes; the first is in the lowest bits.

    Example:
        >>> pack(torch.tensor([1, 0, 1], dtype=torch.uint8), 1).tolist()
        [5]
    """
    each = 8 // bits
    rows = functional.pad(numbers, (0, -len(numbers) % each)).view(-1, each)
    return (rows << _shifts(bits, numbers)).sum(1, dtype=torch.uint8)


def unpack(packed: Tensor, size: int, bits: int) -> Tensor:
    """The numbers that `pack` packed, uint8 (size,)."""
    numbers: Tensor = (packed[:, None] >> _shifts(bits, packed)) & ((1 << bits) - 1)
    return numbers.flatten()[:size]


def _shifts(bits: int, like: Tensor) -> Tensor:
    return torch.arange(0, 8, bits, dtype=torch.uint8, device=like.device)
