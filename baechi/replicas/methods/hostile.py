"""Workers that lie in every round: what they send is an attack on what the honest send."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from baechi.errors import BaechiError
from baechi.replicas.attacks import attack, attack_options
from baechi.replicas.compress.base import Key
from baechi.replicas.methods.core import Gather, Mean, Request

__all__ = ["Hostile"]

_ATTACK = 30


@dataclass(frozen=True, slots=True)
class Hostile:
    """An attack on the rounds of a method: for tests, as an attacker that knows all that the honest send.

    A hostile worker goes on as if it were honest, from the answers that all get; only its messages are others.

    Attributes:
        attack: one of `ATTACKS`. With `label-flip` the messages are its own, from flipped labels.
        count: how many of the workers are hostile: the last of them.
        options: of the attack.

    Raises:
        BaechiError: B824 when there is no such attack, or nobody or a negative number is hostile.
    """

    attack: str
    count: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        attack_options(self.attack)
        if self.count < 1:
            raise BaechiError("B824", f"attack '{self.attack}' by {self.count} workers", help="at least 1")

    @property
    def flips(self) -> bool:
        """Whether it is the hostile workers' labels that are false, and not their messages."""
        return "flipped" in attack_options(self.attack)

    def send(self, asked: Sequence[Request], key: Key) -> list[Request]:
        """What is asked in a round, with the hostile workers' messages in place of theirs.

        Where no honest worker takes part, they are as they were.

        Args:
            asked: by worker.
            key: of the round.

        Raises:
            BaechiError: B824 when the messages are no vectors of everyone's, or an option is out of range.
        """
        first = len(asked) - self.count
        active = [i for i, request in enumerate(asked) if getattr(request, "active", True)]
        honest, lying = [i for i in active if i < first], [i for i in active if i >= first]
        if self.flips or not honest or not lying:
            return list(asked)
        if not all(isinstance(asked[i], Mean | Gather) and asked[i].tensor.is_floating_point() for i in active):
            what = f"attack '{self.attack}' on messages between two, or of bytes"
            raise BaechiError("B824", what, help="a method of rounds, with compressors that all share")
        takes, options = attack_options(self.attack), dict(self.options)
        if "own" in takes:
            options["own"] = torch.stack([asked[i].tensor for i in lying])
        if "seed" in takes:
            options["seed"] = key._replace(seed=int(options.get("seed", key.seed)), use=key.use + _ATTACK).number()
        rows = attack(self.attack, torch.stack([asked[i].tensor for i in honest]), len(lying), **options)
        sent = list(asked)
        for i, row in zip(lying, rows, strict=True):
            sent[i] = replace(asked[i], tensor=row)
        return sent
