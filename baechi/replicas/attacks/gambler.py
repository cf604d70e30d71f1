"""The gambler: on part of the model, now and then a value is made huge (Xie et al., Phocas, 1805.09682, experiments)."""

import torch

from baechi.errors import BaechiError
from baechi.replicas.attacks.own import own_rows
from baechi.replicas.rules.stack import Rows, Stack, Vectors

__all__ = ["gambler"]


def gambler(
    honest: Stack,
    q: int,
    *,
    probability: float = 0.0005,
    scale: float = 1e20,
    part: float = 0.05,
    own: Vectors | None = None,
    seed: int = 0,
) -> Rows:
    """Each sends its own vector, where values of the first coordinates are multiplied by -scale at random.

    Args:
        honest: the honest vectors.
        q: hostile peers.
        probability: of a value to be spoilt.
        scale: of the spoilt values.
        part: of each shard's coordinates, from the first: those of the one server that is hostile.
        own: the hostile peers' own vectors.
        seed: of the draws.

    Raises:
        BaechiError: B824 when an option is out of its range, B823 when their own vectors do not fit.
    """
    if not (0 <= probability <= 1 and 0 <= part <= 1):
        what = f"attack 'gambler': probability {probability:g}, part {part:g}"
        raise BaechiError("B824", what, help="both from 0 to 1")
    stream, rows = torch.Generator().manual_seed(seed), own_rows(honest, q, own)
    for each in rows:
        first = each[:, : round(part * each.shape[1])]
        hit = torch.rand(first.shape, generator=stream) < probability
        first[hit.to(first.device)] *= -scale
    return rows
