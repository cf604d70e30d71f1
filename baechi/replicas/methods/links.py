"""Links to a server that are up and down: who takes part in a round, told by a seed, so that everybody knows."""

from dataclasses import dataclass
from math import pi, sin

import torch

from baechi.replicas.compress.base import Key
from baechi.replicas.methods.descent import refuse

__all__ = ["KINDS", "Links", "sampled"]

KINDS = ("always", "bernoulli", "markov", "cyclic")
_LINKS, _OFFSETS, _SAMPLE = 10, 11, 12


@dataclass(frozen=True, slots=True)
class Links:
    """Of each client, whether its link is up in a round.

    Attributes:
        kind: `always` up; `bernoulli`: up with the client's p, each round anew; `markov`: p of the rounds too, and
            what it is correlates with the round before by `memory`; `cyclic`: the first p of each period, which
            begins elsewhere for each client.
        p: of each client; repeated when there are more clients.
        memory: of `markov`, 0 to below 1.
        period: of `cyclic`, rounds.
        fluctuation: gamma of `bernoulli` and `markov`, 0 to 0.5: p becomes p (1 - gamma + gamma sin(2 pi t / wave))
            in round t, between p and p (1 - 2 gamma) (FedPBC's).
        wave: rounds of one such sine.
    """

    kind: str = "always"
    p: tuple[float, ...] = (0.5,)
    memory: float = 0.9
    period: int = 10
    fluctuation: float = 0.0
    wave: int = 40

    def check(self, name: str) -> None:
        """Refuse what is out of range.

        Raises:
            BaechiError: B831.
        """
        if self.kind not in KINDS:
            raise refuse(name, f"no links '{self.kind}'", "one of: " + ", ".join(KINDS))
        if not self.p or not all(0 < p <= 1 for p in self.p):
            raise refuse(name, f"p is {','.join(f'{p:g}' for p in self.p)}", "each more than 0, 1 at most")
        if not 0 <= self.memory < 1 or self.period < 1:
            what = f"memory is {self.memory:g} and period {self.period}"
            raise refuse(name, what, "0 to below 1, and at least 1")
        if not 0 <= self.fluctuation <= 0.5 or self.wave < 1:
            what = f"fluctuation is {self.fluctuation:g} and wave {self.wave}"
            raise refuse(name, what, "0 to 0.5, and at least 1")
        if self.fluctuation and self.kind not in ("bernoulli", "markov"):
            raise refuse(name, f"fluctuation of links '{self.kind}'", "links=bernoulli or links=markov")

    def up(self, seed: int, round: int, count: int, before: tuple[bool, ...]) -> tuple[bool, ...]:
        """By client, whether its link is up.

        Args:
            seed: of the run.
            round: from 0.
            count: of clients.
            before: what this gave for the round before; empty in round 0.
        """
        if self.kind == "always":
            return (True,) * count
        p = [self.p[i % len(self.p)] for i in range(count)]
        if self.kind == "cyclic":
            begins = torch.randint(self.period, (count,), generator=Key(seed, 0, _OFFSETS).generator()).tolist()
            return tuple(
                (round + b) % self.period < max(1, int(q * self.period + 0.5)) for b, q in zip(begins, p, strict=True)
            )
        now = 1 - self.fluctuation + self.fluctuation * sin(2 * pi * round / self.wave)
        p = [q * now for q in p]
        drawn = torch.rand(count, generator=Key(seed, round, _LINKS).generator(), dtype=torch.float64).tolist()
        if self.kind == "markov" and before:
            p = [q * (1 - self.memory) + self.memory * was for q, was in zip(p, before, strict=True)]
        return tuple(u < q for u, q in zip(drawn, p, strict=True))


def sampled(seed: int, round: int, count: int, k: int) -> frozenset[int]:
    """k of the clients, all equally likely; all of them when k is 0."""
    if not 0 < k < count:
        return frozenset(range(count))
    order = torch.randperm(count, generator=Key(seed, round, _SAMPLE).generator())
    return frozenset(order[:k].tolist())
