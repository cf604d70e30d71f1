"""What a plan is worth when the costs that it was made from are wrong."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from baechi.cost.problem import Arrays, Ints, Problem
from baechi.ir.plan import Plan
from baechi.sim.evaluate import Schedule, plan_schedule, score
from baechi.units import to_seconds

__all__ = ["Sensitivity", "perturbed_ticks", "sensitivity"]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The objective of a plan, in seconds, over random errors of all costs.

    Attributes:
        spread: every time is multiplied by a random factor from 1 - spread to 1 + spread.
        samples: how often that was done.
        least, mean, most: of the objective.
    """

    spread: float
    samples: int
    least: float
    mean: float
    most: float


def sensitivity(problem: Problem, plan: Plan, spread: float, *, samples: int = 50, seed: int = 0) -> Sensitivity:
    """Simulate a plan again, its devices and orders kept, under random errors of the costs.

    Args:
        problem: what the plan places.
        plan: the plan.
        spread: the largest relative error, from 0 to 1.
        samples: how many times.
        seed: of the errors.

    Source: Jeon et al., "Baechi", extended version, figure 8.
    """
    ticks = perturbed_ticks(problem.arrays, plan_schedule(problem, plan), spread, samples, seed)
    mean = float(ticks.mean()) / 1e12
    return Sensitivity(spread, samples, to_seconds(int(ticks.min())), mean, to_seconds(int(ticks.max())))


def perturbed_ticks(a: Arrays, schedule: Schedule, spread: float, samples: int, seed: int) -> Ints:
    """(samples,) the objective of a schedule under random errors of all costs; the seed fixes them."""
    return np.array([score(wrong, schedule)[1] for wrong in _perturbed(a, spread, samples, seed)], np.int64)


def _perturbed(a: Arrays, spread: float, samples: int, seed: int) -> Iterator[Arrays]:
    """An op errs alike on all devices, a declared transfer by itself, a link alike for all it carries."""
    chance = np.random.default_rng(seed)

    def factors(shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return chance.uniform(1 - spread, 1 + spread, shape)

    for _ in range(samples):
        link = factors(a.latency.shape)
        declared = np.rint(a.t_ticks * factors(a.t_ticks.shape)).astype(np.int64)
        yield a._replace(
            ticks=np.rint(a.ticks * factors((len(a.ticks), 1))).astype(np.int64),
            t_ticks=np.where(a.t_ticks >= 0, declared, a.t_ticks),
            latency=np.rint(a.latency * link).astype(np.int64),
            ticks_per_byte=a.ticks_per_byte * link,
        )
