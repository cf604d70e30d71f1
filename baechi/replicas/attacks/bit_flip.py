"""Bit flip: bits of the numbers in memory are inverted (Xie et al., Phocas, 1805.09682, experiments)."""

import torch

from baechi.errors import BaechiError
from baechi.replicas.attacks.own import own_rows
from baechi.replicas.rules.stack import Rows, Stack, Vectors

__all__ = ["bit_flip"]


def bit_flip(
    honest: Stack,
    q: int,
    *,
    bits: tuple[int, ...] = (22, 30, 31, 32),
    coordinates: int | None = 1000,
    own: Vectors | None = None,
) -> Rows:
    """Each inverts bits of the first coordinates of its own vector, as 32-bit floats.

    Args:
        honest: the honest vectors.
        q: hostile peers.
        bits: which, from 1, the lowest of the mantissa, to 32, the sign.
        coordinates: how many; all when None.
        own: the hostile peers' own vectors.

    Raises:
        BaechiError: B824 when there is no such bit, B823 when their own vectors do not fit.
    """
    if not all(1 <= bit <= 32 for bit in bits) or (coordinates is not None and coordinates < 0):
        raise BaechiError("B824", f"attack 'bit-flip': bits {bits}, {coordinates} coordinates", help="bits 1 to 32")
    mask = sum(1 << (bit - 1) for bit in set(bits))
    mask -= (mask >> 31) << 32  # as a number with a sign
    rows = own_rows(honest, q, own)
    left = sum(part.shape[1] for part in rows) if coordinates is None else coordinates
    for part in rows:
        first = part[:, :left].float().contiguous()
        part[:, :left] = first.view(torch.int32).bitwise_xor(mask).view(torch.float32).to(part.dtype)
        left = max(0, left - part.shape[1])
    return rows
