"""The omniscient attack: far the other way (Blanchard et al., NeurIPS 2017)."""

import torch

from baechi.replicas.rules.mean import mean
from baechi.replicas.rules.stack import Rows, Stack

__all__ = ["omniscient"]


def omniscient(honest: Stack, q: int, *, scale: float = 1e20) -> Rows:
    """All send -scale times the sum of the honest vectors."""
    factor = -scale * len(honest)
    return [torch.mul(part, factor).expand(q, -1).clone() for part in mean(honest)]
