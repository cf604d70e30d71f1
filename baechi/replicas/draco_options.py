"""What a peer of DRACO sends and lets in, and what its weights favour."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from baechi.errors import BaechiError
from baechi.replicas.topology import Topology, mixing_warning

__all__ = ["DracoOptions", "Exchange", "draco_warning", "receiver_weights"]

Exchange: TypeAlias = Literal["update", "model", "push-sum"]


@dataclass(frozen=True, slots=True)
class DracoOptions:
    """What a peer sends and what it lets in.

    Attributes:
        exchange: ``update``: what local steps changed since the last message, of which the receiver adds its share;
            ``model``: the sender's model, towards which the receiver moves by its share; ``push-sum``: shares of the
            model and of a weight, which finds the mean whatever the graph.
        own: what a peer's own update counts in its model once it was sent, as q_ii of the row; 1 leaves it as it is.
            For ``update`` only.
        max_delay: Gamma, in seconds: what is older when it comes is dropped.
        max_received: Psi: how many messages are let in for each period; None for any number.
        period: P, in seconds: of the cap and of the unification.
        unify: whether after each period the model of one peer, drawn at random, takes the place of all others.
        seed: of these draws; the same for all peers.

    Raises:
        BaechiError: B845 on values out of their range.
    """

    exchange: Exchange = "update"
    own: float = 1.0
    max_delay: float = np.inf
    max_received: int | None = None
    period: float = 10.0
    unify: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        known = get_args(Exchange)
        if self.exchange not in known:
            raise BaechiError("B845", f"DRACO has no exchange '{self.exchange}'", help="one of: " + ", ".join(known))
        if not (0 <= self.own <= 1 and self.max_delay >= 0 and self.period > 0):
            raise BaechiError("B845", "own is from 0 to 1, a delay 0 or more and a period above 0 seconds")
        if self.max_received is not None and self.max_received < 0:
            raise BaechiError("B845", f"a cap of {self.max_received} messages", help="0 or more")
        if self.exchange == "push-sum" and self.unify:
            raise BaechiError("B845", "push-sum's weights add up; a unification would break that", help="unify=False")


def receiver_weights(topology: Topology, own: float = 0.0) -> NDArray[np.float64]:
    """(n, n) equal weights: row j says what receiver j counts the peers it hears; each row sums to 1.

    Args:
        topology: i sends to its neighbours.
        own: the diagonal.

    Raises:
        BaechiError: B845 when nobody sends to some peer.
    """
    n = topology.peers
    heard = np.zeros((n, n))
    for i in range(n):
        heard[list(topology.neighbours(i)), i] = 1.0
    if (heard.sum(axis=1) == 0).any():
        peer = int(np.argmin(heard.sum(axis=1)))
        raise BaechiError("B845", f"peer {peer} hears nobody", help="every peer needs a neighbour that sends to it")
    weights: NDArray[np.float64] = heard / heard.sum(axis=1, keepdims=True) * (1 - own)
    np.fill_diagonal(weights, own)
    return weights


def draco_warning(weights: NDArray[Any], options: DracoOptions) -> str | None:
    """What a person should know about these weights: that they count some peers more than others, or nothing.

    Args:
        weights: (n, n): row j is receiver j's.
        options: of the peers.
    """
    if options.exchange == "push-sum":
        return None
    if options.exchange == "model":
        return mixing_warning(weights)
    matrix = np.array(weights, np.float64)
    np.fill_diagonal(matrix, options.own)
    counts = matrix.sum(axis=0) / matrix.sum(axis=0).mean()
    if np.abs(counts - 1).max() <= 1e-9:
        return None
    return (
        "the weights are row-stochastic only: after unification by peers drawn at random, training converges to an optimum "
        f"that counts the peers {counts.min():.2f} to {counts.max():.2f} times an equal share, not to the mean; "
        "push-sum has no such bias (exchange = push-sum)"
    )
