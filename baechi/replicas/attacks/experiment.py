"""Who breaks whom: training with a rule while some peers attack."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from baechi.errors import BaechiError
from baechi.replicas.attacks import attack, attack_options
from baechi.replicas.rules import aggregate, rule_options

if TYPE_CHECKING:
    from baechi.replicas.problems.base import Problem

__all__ = ["CORRUPTIONS", "Match", "Outcome", "play"]

CORRUPTIONS = ("classic", "dimensional")
_TRUSTED_EXAMPLES = 32


@dataclass(frozen=True, slots=True)
class Match:
    """A rule against an attack.

    Attributes:
        rule: one of `RULES`.
        attack: one of `ATTACKS`; None when nobody attacks.
        hostile: how many of the workers do: the last of them.
        bears: how many the rule is told.
        options: of the attack.
        corruption: `classic`: whole vectors are hostile; `dimensional`: in each coordinate the values of as many
            workers, other ones each time.
    """

    rule: str
    attack: str | None
    hostile: int
    bears: int
    options: Mapping[str, Any] = field(default_factory=dict)
    corruption: str = "classic"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What training came to.

    Attributes:
        loss: on held-out data; None when it is not finite.
        accuracy: on held-out data, 0 to 1; None where nothing is classified.
        steps: until the end, or until no gradient was finite any more.
    """

    loss: float | None
    accuracy: float | None
    steps: int


def play(problem: "Problem", match: Match, *, steps: int, rate: float, seed: int = 0) -> Outcome:
    """Train all of a problem's workers by synchronous gradient descent on the aggregated gradient.

    Args:
        problem: its workers are honest but the last `match.hostile`.
        match: who plays.
        steps: at most.
        rate: the learning rate.
        seed: of the start and the attack.

    Raises:
        BaechiError: B822 to B824 as `aggregate` and `attack`; not for gradients that are not finite.
    """
    if match.corruption not in CORRUPTIONS:
        what = f"no corruption '{match.corruption}'"
        raise BaechiError("B824", what, help="one of: " + ", ".join(CORRUPTIONS))
    x, last = problem.start(seed), None
    for step in range(steps):
        honest = problem.gradients(x, range(problem.workers - match.hostile), step)
        if not _is_finite(honest):
            return _outcome(problem, x, step)
        sent = _sent(problem, match, x, honest, step, seed)
        last = aggregate(match.rule, sent, **_options(problem, match, x, last, rate, step))
        moved = x - rate * last
        if not _is_finite(moved):
            return Outcome(None, problem.accuracy(moved), step)
        x = moved
    return _outcome(problem, x, steps)


def _sent(problem: "Problem", match: Match, x: Tensor, honest: Tensor, step: int, seed: int) -> Tensor:
    """(m, d): what arrives at the rule."""
    if match.attack is None or not match.hostile:
        return honest
    takes, options = attack_options(match.attack), dict(match.options)
    own = _gradients(problem, match, x, step) if "own" in takes or match.corruption == "dimensional" else honest
    if "own" in takes:
        options["own"] = own
    if "flipped" in takes:
        options["flipped"] = _gradients(problem, match, x, step, flipped=True)
    if "seed" in takes:
        options["seed"] = int(options.get("seed", seed)) * 1_000_003 + step
    rows = attack(match.attack, honest, match.hostile, **options)
    if match.corruption == "classic":
        return torch.cat((honest, rows))
    return _scattered(torch.cat((honest, own)), rows, seed, step)


def _gradients(problem: "Problem", match: Match, x: Tensor, step: int, *, flipped: bool = False) -> Tensor:
    """(q, d): those of the hostile workers' data."""
    workers = range(problem.workers - match.hostile, problem.workers)
    return problem.gradients(x, workers, step, flipped=flipped)


def _scattered(correct: Tensor, rows: Tensor, seed: int, step: int) -> Tensor:
    """The hostile values in other workers' places in each coordinate: neighbours from a random first one on."""
    stream = torch.Generator().manual_seed(seed * 1_000_003 + step)
    first = torch.randint(len(correct), (correct.shape[1],), generator=stream).to(correct.device)
    places = (first + torch.arange(len(rows), device=correct.device)[:, None]) % len(correct)
    return correct.scatter(0, places, rows)


def _options(
    problem: "Problem", match: Match, x: Tensor, last: Tensor | None, rate: float, step: int
) -> dict[str, Any]:
    """The rule's, for this step."""
    takes = rule_options(match.rule)
    options: dict[str, Any] = {"f": match.bears} if takes.keys() & {"f", "b"} else {}
    if "loss" in takes:
        options |= {"loss": problem.trial(step, batch=_TRUSTED_EXAMPLES), "x": x, "gamma": rate}
    if "start" in takes and last is not None:
        options["start"] = last
    return options


def _is_finite(x: Tensor) -> bool:
    """Whether the sum is: what has a NaN or an infinity, or is about to."""
    return bool(torch.isfinite(x.sum()))


def _outcome(problem: "Problem", x: Tensor, steps: int) -> Outcome:
    loss = problem.loss(x)
    return Outcome(loss if isfinite(loss) else None, problem.accuracy(x), steps)
