"""Inner-product manipulation (Xie et al., Fall of empires, UAI 2020)."""

import torch

from baechi.replicas.rules.mean import mean
from baechi.replicas.rules.stack import Rows, Stack

__all__ = ["inner_product_manipulation"]


def inner_product_manipulation(honest: Stack, q: int, *, epsilon: float = 0.1) -> Rows:
    """All send -epsilon times the mean of the honest vectors.

    The mean falls to a large epsilon, Krum and its kin to a small one: see `baechi.replicas.attacks.breaks`.
    """
    return [torch.mul(part, -epsilon).expand(q, -1).clone() for part in mean(honest)]
