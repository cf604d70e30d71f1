"""Zeno++: one peer's gradient at a time, judged by a trusted one (Xie et al., ICML 2020; the first-order score)."""

from typing import Any

import torch

from baechi.errors import BaechiError
from baechi.replicas.rules.stack import Stack, Vectors

__all__ = ["zeno_async"]


def zeno_async(
    update: Vectors, trusted: Vectors, *, gamma: float, rho: float | None = None, epsilon: float = 0.1
) -> Any | None:
    """A peer's gradient, made as long as the trusted one, when it may be applied.

    With g so scaled and v the trusted gradient, it is applied when gamma <v, g> - rho |g|^2 >= -gamma epsilon: when,
    to first order, a step along g lowers the trusted loss by enough. The trusted gradient may be some steps old.

    Args:
        update: the peer's gradient, (d,), or shards of it.
        trusted: one of the server's own few samples, in the same form.
        gamma: the learning rate.
        rho: weight of the length; gamma / 200 when None.
        epsilon: how much worse than nothing is let pass.

    Returns:
        The scaled gradient, in the form of `update`; None to ignore the peer, as when it has a NaN or an infinity.

    Raises:
        BaechiError: B822 when an option is out of its range, B823 when the two do not fit or the trusted one is not
            finite.

    Example:
        >>> import numpy as np
        >>> v = np.array([3.0, 4.0])
        >>> zeno_async(10 * v, v, gamma=0.1), zeno_async(-v, v, gamma=0.1)
        (array([3., 4.]), None)
    """
    rho = gamma / 200 if rho is None else rho
    if not gamma > 0 or rho < 0 or epsilon < 0:
        what = f"zeno_async: gamma {gamma:g}, rho {rho:g}, epsilon {epsilon:g}"
        raise BaechiError("B822", what, help="a positive gamma; rho and epsilon of 0 up")
    pair = Stack.of(update, trusted)
    if 1 not in pair.kept:
        raise BaechiError("B823", "zeno_async: the trusted gradient is not finite")
    if 0 not in pair.kept:
        return None
    gram = pair.products()
    if gram[0, 0] == 0.0:
        return None
    scale = float((gram[1, 1] / gram[0, 0]) ** 0.5)
    if gamma * scale * gram[0, 1] - rho * gram[1, 1] < -gamma * epsilon:
        return None
    return pair.returned([torch.mul(row, scale) for row in pair.row(0)])
