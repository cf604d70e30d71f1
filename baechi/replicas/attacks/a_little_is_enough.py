"""A little is enough (Baruch et al., NeurIPS 2019): as far from the mean as still looks honest."""

from statistics import NormalDist

import torch
from torch import Tensor

from baechi.replicas.rules.columns import added
from baechi.replicas.rules.stack import Rows, Stack

__all__ = ["a_little_is_enough", "little"]


def a_little_is_enough(honest: Stack, q: int, *, z: float | None = None) -> Rows:
    """All send the honest mean less z standard deviations, in each coordinate.

    Args:
        honest: the honest vectors.
        q: hostile peers.
        z: how many; the largest that wins a majority, `little`, when None.
    """
    far = little(len(honest) + q, q) if z is None else z

    def spoilt(block: Tensor) -> Tensor:
        mean = added(block.unbind(0)) / len(block)
        deviation = ((block - mean).square().sum(0) / max(1, len(block) - 1)).sqrt()
        return torch.sub(mean, deviation, alpha=far)

    return [part.expand(q, -1).clone() for part in honest.columns(spoilt)]


def little(peers: int, q: int) -> float:
    """z such that, with some honest peers farther out than that, the hostile ones are within a majority.

    With s = floor(n / 2 + 1) - q supporters wanted among n - q honest, it is the normal quantile of (n - q - s)/(n - q).

    Example:
        >>> round(little(50, 12), 3)
        0.336
    """
    honest, supporters = peers - q, peers // 2 + 1 - q
    share = (honest - supporters) / honest
    return NormalDist().inv_cdf(min(max(share, 0.5 / honest), 1 - 0.5 / honest))
