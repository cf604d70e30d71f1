"""Run methods on one problem until each has used up the same steps, bytes or seconds, and look at its loss on the way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

from baechi.errors import BaechiError
from baechi.replicas.methods import method

if TYPE_CHECKING:
    from baechi.replicas.methods.core import Runner
    from baechi.replicas.methods.hostile import Hostile
    from baechi.replicas.methods.lockstep import Costs
    from baechi.replicas.problems.base import Problem

__all__ = ["Budget", "Curve", "Entry", "Point", "Race", "race", "spread"]


class Entry(NamedTuple):
    """A method that takes part.

    Attributes:
        label: what it is called.
        method: its name.
        options: of it.
    """

    label: str
    method: str
    options: dict[str, Any]


class Point(NamedTuple):
    """A method at one moment.

    Attributes:
        step: local steps of each worker.
        nbytes: sent by a worker, in the mean.
        seconds: of the virtual clock.
        loss: on held-out data; None when it is not finite.
        accuracy: there, 0 to 1; None where nothing is classified.
    """

    step: int
    nbytes: float
    seconds: float
    loss: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Budget:
    """When a method has had enough: whatever comes first.

    Attributes:
        steps: local steps of each worker.
        nbytes: sent by a worker; None is no limit.
        seconds: of the virtual clock; None is no limit.
    """

    steps: int
    nbytes: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for amount in (self.steps, self.nbytes, self.seconds):
            if amount is not None and not 0 < amount < float("inf"):
                raise BaechiError("B835", f"a budget of {amount:g}", help="more than 0")

    def used(self, run: "Runner") -> float:
        """The share that is used up: 1 at the end."""
        used = run.t / self.steps
        if self.nbytes is not None:
            used = max(used, fmean(run.sent) / self.nbytes)
        return used if self.seconds is None else max(used, run.seconds / self.seconds)


@dataclass(frozen=True, slots=True)
class Curve:
    """One run of a method.

    Attributes:
        entry: the method.
        seed: of the data, the start and what the method draws.
        points: from the start to the end.
        expected: the expected loss at each point where there is a closed form; else empty.
    """

    entry: Entry
    seed: int
    points: tuple[Point, ...]
    expected: tuple[float, ...] = ()

    @property
    def diverged(self) -> bool:
        """Whether the loss did not stay finite."""
        return self.points[-1].loss is None


@dataclass(frozen=True, slots=True)
class Race:
    """What `race` gives."""

    problem: str
    workers: int
    budget: Budget
    costs: "Costs"
    curves: tuple[Curve, ...] = field(default=())

    def of(self, label: str) -> tuple[Curve, ...]:
        """The runs of one method, by seed."""
        return tuple(curve for curve in self.curves if curve.entry.label == label)

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the methods, in their order."""
        return tuple(dict.fromkeys(curve.entry.label for curve in self.curves))


def race(
    entries: Sequence[Entry],
    make: Callable[[int], "Problem"],
    workers: int,
    budget: Budget,
    seeds: Sequence[int],
    *,
    points: int = 40,
    costs: "Costs | None" = None,
    hostile: "Hostile | None" = None,
    progress: Callable[[str], None] | None = None,
) -> Race:
    """Run every method from every seed.

    Args:
        entries: the methods; no label twice.
        make: the problem with the data of a seed.
        workers: how many.
        budget: of each run.
        seeds: at least one.
        points: how often the loss is looked at, spread evenly over the budget.
        costs: of the virtual clock.
        hostile: the workers that attack every method.
        progress: is told which run begins.

    Raises:
        BaechiError: B831 when a method or option is not there, B832 when a problem has data for fewer workers,
            B835 when nothing is to be run, or a label comes twice.
    """
    from baechi.replicas.methods.lockstep import Costs

    costs, labels = costs or Costs(), [entry.label for entry in entries]
    if not entries or not seeds or points < 1:
        raise BaechiError("B835", f"{len(entries)} methods, {len(seeds)} seeds and {points} points", help="at least 1")
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise BaechiError("B835", f"two methods are called '{twice[0]}'", help=f"write {twice[0]}@ANOTHER for one")
    methods = [method(entry.method, **entry.options) for entry in entries]
    curves, name = [], ""
    for seed in seeds:
        problem = make(seed)
        name = problem.name
        for entry, made in zip(entries, methods, strict=True):
            if progress is not None:
                progress(f"{entry.label}, seed {seed}")
            found = _run(made.runner(problem, workers, seed, costs, hostile), problem, budget, points)
            expected = () if hostile else _expected(made, problem, workers, seed, found)
            curves.append(Curve(entry, seed, found, expected))
    return Race(name, workers, budget, costs, tuple(curves))


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and the standard deviation of a sample; 0 of one value."""
    return fmean(values), stdev(values) if len(values) > 1 else 0.0


def _run(run: "Runner", problem: "Problem", budget: Budget, points: int) -> tuple[Point, ...]:
    found, due = [_look(run, problem)], 1
    while (used := budget.used(run)) < 1:
        if used * points >= due:
            found.append(_look(run, problem))
            due = int(used * points) + 1
            if found[-1].loss is None:
                return tuple(found)
        run.step()
    return (*found, _look(run, problem))


def _look(run: "Runner", problem: "Problem") -> Point:
    x = run.model()
    loss = problem.loss(x)
    return Point(run.t, fmean(run.sent), run.seconds, loss if isfinite(loss) else None, problem.accuracy(x))


def _expected(made: Any, problem: "Problem", workers: int, seed: int, points: Sequence[Point]) -> tuple[float, ...]:
    from baechi.replicas.comparison.theory import expected_losses

    return expected_losses(made, problem, workers, seed, [point.step for point in points])
