"""What a simulated network of peers is like: clocks, links, and what goes wrong when."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from baechi.errors import BaechiError
from baechi.replicas.clocks import Distribution

__all__ = ["CHANGES", "Change", "Conditions", "Partition", "parse_change", "parse_partition"]

CHANGES = ("crash", "join", "leave", "restart")
"""What can happen to a peer: it dies and may be restarted, it leaves for good, or it comes late."""

_A_SECOND, _NO_TIME = Distribution(spread=1.0), Distribution()
_CHANGE = re.compile(r"(?P<what>[a-z]+):(?P<peer>\d+)@(?P<at>[\d.e+-]+)")
_PARTITION = re.compile(r"(?P<start>[\d.e+]+)-(?P<end>[\d.e+]+):(?P<groups>[\d,|]+)")


class Change(NamedTuple):
    """What happens to a peer at a time, in seconds: one of `CHANGES`."""

    at: float
    what: str
    peer: int


class Partition(NamedTuple):
    """From `start` to `end`, in seconds, messages stay inside their group; peers in no group form one more."""

    start: float
    end: float
    groups: tuple[frozenset[int], ...]

    def separates(self, a: int, b: int, now: float) -> bool:
        """Whether a message from one peer to the other cannot pass now."""
        return self.start <= now < self.end and self._group(a) != self._group(b)

    def _group(self, peer: int) -> int:
        return next((g for g, members in enumerate(self.groups) if peer in members), -1)


@dataclass(frozen=True, slots=True)
class Conditions:
    """Clocks, links and faults; times in seconds.

    Attributes:
        compute: how long the local steps of one update take.
        mixing: from one ring of a peer's mixing clock to the next; its mean is 1 over the capacity lambda.
        burst: when given, a token bucket of this depth and of the mixing clock's rate limits each peer as well.
        latency: of each message.
        bandwidth: of each message's way, in bytes a second; None when size does not matter.
        drop: the chance that a message is lost.
        timeout: after which a request that was not answered counts as lost; what comes later is dropped.
        slow: by peer, how many times as long its updates take: stragglers.
        partitions: of the network.
        churn: of the peers.

    Raises:
        BaechiError: B843 on values out of their range.
    """

    compute: Distribution = _A_SECOND
    mixing: Distribution = _A_SECOND
    burst: float | None = None
    latency: Distribution = _NO_TIME
    bandwidth: Distribution | None = None
    drop: float = 0.0
    timeout: float = 10.0
    slow: Mapping[int, float] = field(default_factory=dict)
    partitions: Sequence[Partition] = ()
    churn: Sequence[Change] = ()

    def __post_init__(self) -> None:
        if self.compute.mean <= 0 or self.mixing.mean <= 0:
            raise BaechiError("B843", "updates and the mixing clock need a mean above 0 seconds")
        if not 0 <= self.drop < 1:
            raise BaechiError("B843", f"a chance of {self.drop} to lose a message", help="from 0 to below 1")
        if not 0 < self.timeout < math.inf:
            raise BaechiError("B843", f"a time-out of {self.timeout} s", help="above 0")
        if any(not 0 < factor < math.inf for factor in self.slow.values()):
            raise BaechiError("B843", "a straggler is slower by a factor above 0")
        if self.bandwidth is not None and self.bandwidth.mean <= 0:
            raise BaechiError("B843", "a bandwidth is above 0 bytes a second")

    def compute_of(self, peer: int) -> Distribution:
        """How long a peer's updates take."""
        return self.compute.scaled(self.slow[peer]) if peer in self.slow else self.compute

    def separated(self, a: int, b: int, now: float) -> bool:
        """Whether a partition stands between two peers now."""
        return any(p.separates(a, b, now) for p in self.partitions)


def parse_change(text: str) -> Change:
    """Read what happens to a peer.

    Args:
        text: ``crash:3@10``: peer 3, at 10 seconds; one of `CHANGES`.

    Raises:
        BaechiError: B843 on anything else.

    Example:
        >>> parse_change("restart:3@15")
        Change(at=15.0, what='restart', peer=3)
    """
    match = _CHANGE.fullmatch(text.strip())
    if match is None or match["what"] not in CHANGES:
        raise BaechiError("B843", f"'{text}' is no change of a peer", help=f"as in crash:3@10; {', '.join(CHANGES)}")
    return Change(_seconds(match["at"], text), match["what"], int(match["peer"]))


def parse_partition(text: str) -> Partition:
    """Read a partition.

    Args:
        text: ``10-20:0,1|2,3``: from 10 to 20 seconds peers 0 and 1 hear each other only, and so do 2 and 3.

    Raises:
        BaechiError: B843 on anything else.

    Example:
        >>> parse_partition("10-20:0,1").separates(0, 5, 12.0)
        True
    """
    match = _PARTITION.fullmatch(text.strip())
    if match is None:
        raise BaechiError("B843", f"'{text}' is no partition", help="as in 10-20:0,1|2,3")
    groups = tuple(frozenset(int(p) for p in part.split(",") if p) for part in match["groups"].split("|"))
    return Partition(_seconds(match["start"], text), _seconds(match["end"], text), groups)


def _seconds(text: str, whole: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BaechiError("B843", f"'{text}' in '{whole}' is no time in seconds") from None
