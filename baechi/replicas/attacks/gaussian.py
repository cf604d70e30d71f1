"""Noise, as Krum's authors have it (Blanchard et al., NeurIPS 2017)."""

import torch

from baechi.errors import BaechiError
from baechi.replicas.rules.stack import Rows, Stack

__all__ = ["gaussian"]


def gaussian(honest: Stack, q: int, *, sigma: float = 200.0, seed: int = 0) -> Rows:
    """Each sends N(0, sigma^2) in each coordinate.

    Raises:
        BaechiError: B824 when sigma is negative.
    """
    if not sigma >= 0:
        raise BaechiError("B824", f"attack 'gaussian': sigma {sigma:g}", help="0 or more")
    stream = torch.Generator().manual_seed(seed)
    return [
        (sigma * torch.randn(q, shard.shape[1], generator=stream)).to(shard.device, shard.dtype)
        for shard in honest.shards()
    ]
