"""The gossip core as two clocks at each peer, and the exact laws of how stale it leaves them."""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from baechi.errors import BaechiError
from baechi.replicas.ages_loop import PULL, PUSH_SUM, SYMMETRIC
from baechi.replicas.topology import Topology

__all__ = ["MIXING", "AgeModel", "staleness_law", "transient_law"]

Floats: TypeAlias = NDArray[np.float64]

MIXING = {"pull": PULL, "push-sum": PUSH_SUM, "symmetric": SYMMETRIC}
"""Ways to mix two models, by name."""

_EULER = 0.5772156649015329


@dataclass(frozen=True, slots=True)
class AgeModel:
    """The gossip core: two independent clocks at each peer.

    Attributes:
        topology: whom a peer exchanges with.
        capacity: exchanges that a peer begins a second, lambda: one rate, or one for each peer; its clock is exponential.
        update_rate: mu; an update lasts `compute_offset` and an exponential time of mean 1/mu.
        compute_offset: c, in seconds.
        mixing: a name of `MIXING`: a peer takes from the other (pull), both take (symmetric), or it gives (push-sum).
        weight: of the other's model; half for symmetric pairs to become equal.
        opportunistic: only peers that reflect the newest update speak, and share the capacity of all.

    Source: Mitra and Ulukus, "Scale-Robust Timely Asynchronous Decentralized Learning" (2404.19749). The opportunistic
    policy is a model of what they call so.
    """

    topology: Topology
    capacity: float | Floats = 1.0
    update_rate: float = 1.0
    compute_offset: float = 0.0
    mixing: str = "pull"
    weight: float = 0.5
    opportunistic: bool = False

    def __post_init__(self) -> None:
        rates = np.atleast_1d(np.asarray(self.capacity, np.float64))
        if len(rates) not in (1, self.topology.peers):
            raise BaechiError(
                "B842", f"{len(rates)} capacities for {self.topology.peers} peers", help="one, or one each"
            )
        if not (np.isfinite(rates).all() and rates.min() >= 0 and rates.max() > 0):
            raise BaechiError("B842", f"capacity {self.capacity} is no rate", help="above 0, in exchanges a second")
        if not 0 < self.update_rate < math.inf or not 0 <= self.compute_offset < math.inf:
            raise BaechiError("B842", "the update clock needs a rate above 0 and an offset of 0 or more seconds")
        if self.mixing not in MIXING:
            raise BaechiError("B842", f"there is no mixing '{self.mixing}'", help="one of: " + ", ".join(MIXING))
        if not 0 < self.weight <= 1:
            raise BaechiError("B842", f"a weight of {self.weight}", help="above 0, at most 1")
        if self.opportunistic and (len(rates) > 1 or self.mixing != "pull"):
            raise BaechiError(
                "B842", "opportunistic gossip has one capacity and one-way messages", help="--mixing pull"
            )

    @property
    def effective_rate(self) -> float:
        """mu_eff = 1/(c + 1/mu), updates a second."""
        return 1 / (self.compute_offset + 1 / self.update_rate)


def staleness_law(gossip: AgeModel) -> float | None:
    """E[S] in the long run, in updates; None where no law is known.

    Exact on a complete graph (mu_eff H_(n-1) / lambda: first passage with the total rate k (n-k)/(n-1) lambda when k peers
    know) and on a ring (mu_eff n / (2 lambda): two ends that move); symmetric exchanges carry both ways and count twice.
    Opportunistic: mu_eff (n-1) / lambda, exact without an offset: a message reaches any peer that does not know the newest
    update with the rate n lambda / (n-1), and that update stays the newest for a time of rate n mu.

    Example:
        >>> from baechi.replicas.topology import parse_topology
        >>> round(staleness_law(AgeModel(parse_topology("complete", 128))), 2)
        5.43
    """
    n, name = gossip.topology.peers, gossip.topology.name
    if np.ndim(gossip.capacity) or name not in ("complete", "ring"):
        return None
    speed = float(gossip.capacity) * (2 if gossip.mixing == "symmetric" else 1)
    if gossip.opportunistic:
        return gossip.effective_rate * (n - 1) / speed if name == "complete" else None
    if name == "ring" and n > 3:
        return gossip.effective_rate * n / (2 * speed)
    return gossip.effective_rate * _harmonic(n - 1) / speed


def transient_law(gossip: AgeModel, seconds: float) -> float | None:
    """The mean of S after some seconds, of many peers that begin equal; None where no law is known.

    A source's news is a Yule process while few know them and logistic afterwards: P(not yet known after s) =
    E[1/(1 + W exp(lambda s)/n)], W exponential; S(t) = mu_eff times its integral to t.
    """
    law = staleness_law(gossip)
    if law is None or gossip.topology.name != "complete" or gossip.opportunistic:
        return None
    n = gossip.topology.peers
    speed = gossip.effective_rate * _harmonic(n - 1) / law
    w = -np.log1p(-(np.arange(4000) + 0.5) / 4000)
    known = np.log1p(n / w) - np.log1p(n / w * np.exp(-speed * seconds))
    return float(gossip.effective_rate / speed * known.mean())


def _harmonic(m: int) -> float:
    if m < 10_000:
        return sum(1 / k for k in range(1, m + 1))
    return math.log(m) + _EULER + 1 / (2 * m)
