"""Many matches, on some processes: each makes its own problem, of the same data."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from baechi.replicas.problems import problem

if TYPE_CHECKING:
    from baechi.replicas.attacks.experiment import Match, Outcome
    from baechi.replicas.problems.base import Problem

__all__ = ["Setting", "broken", "matches"]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is trained, and how long.

    Attributes:
        problem: one of `PROBLEMS`.
        options: of the problem; `workers` among them.
        steps: of training.
        rate: the learning rate.
        seed: of the start and the attacks.
    """

    problem: str
    options: Mapping[str, Any]
    steps: int
    rate: float
    seed: int


def matches(setting: Setting, listed: Sequence["Match"], processes: int) -> Iterator["Outcome"]:
    """The outcomes of matches, in their order.

    Raises:
        BaechiError: as `problem` and `play`.
    """
    if processes < 2 or len(listed) < 2:
        made = problem(setting.problem, **setting.options)
        for match in listed:
            yield _play(made, setting, match)
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), _begin, (setting,)) as pool:
        yield from pool.map(_play_here, listed)


def broken(outcome: "Outcome", peaceful: "Outcome", start_loss: float) -> bool:
    """Whether an attack has undone more than half of what training without one achieves."""
    if outcome.accuracy is not None and peaceful.accuracy is not None:
        return outcome.accuracy < peaceful.accuracy / 2
    if outcome.loss is None or peaceful.loss is None:
        return outcome.loss is None
    return outcome.loss > (start_loss + peaceful.loss) / 2


def _play(made: "Problem", setting: Setting, match: "Match") -> "Outcome":
    from baechi.replicas.attacks.experiment import play

    return play(made, match, steps=setting.steps, rate=setting.rate, seed=setting.seed)


_here: list[tuple["Problem", Setting]] = []
"""In a process of the pool: its problem."""


def _begin(setting: Setting) -> None:
    import torch

    torch.set_num_threads(1)
    _here.append((problem(setting.problem, **setting.options), setting))


def _play_here(match: "Match") -> "Outcome":
    made, setting = _here[0]
    return _play(made, setting, match)
