"""What quick placers make of a problem: enough to say what other devices, or another placer, would be worth."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from baechi.cost.problem import Problem
from baechi.placers.base import Placer, best_of
from baechi.placers.etf import Etf
from baechi.placers.fixed import Contiguous, Single
from baechi.placers.heft import Heft
from baechi.placers.topo import Topo
from baechi.placers.variants import variants
from baechi.sim.whatif import Outcome
from baechi.units import to_seconds

__all__ = ["Tried", "best_quick", "left_out", "try_quick"]

_MOST_OPS = {"contiguous": 5000, "heft": 50_000}  # above, these take longer than all else that a report says
_LARGE = 5000  # ops, above which heft and m-topo give their plain schedule alone


@dataclass(frozen=True, slots=True)
class Tried:
    """What a placer made, as it is: nothing is mended that is over a cap.

    Attributes:
        placer: its name.
        outcome: of the best of its schedules.
    """

    placer: str
    outcome: Outcome


def try_quick(problem: Problem, seed: int = 0) -> tuple[Tried, ...]:
    """What single, m-topo, m-etf, contiguous and heft make of a problem, but for those `left_out`.

    Example:
        >>> from baechi.ir.cluster import Cluster, Device
        >>> from baechi.models.graphs import figure_2
        >>> cluster = Cluster((Device("d:0", 1), Device("d:1", 1)))
        >>> [(t.placer, t.outcome.objective_seconds) for t in try_quick(Problem(figure_2(), cluster))][::2]
        [('single', 20.0), ('m-etf', 14.0), ('heft', 13.0)]
    """
    skipped = left_out(problem)
    heft = Heft(tries=0) if _is_large(problem) else Heft()
    all_of_them: tuple[Placer, ...] = (Single(), Topo(), Etf(), Contiguous(), heft)
    return tuple(_tried(problem, (placer for placer in all_of_them if placer.name not in skipped), seed))


def left_out(problem: Problem) -> tuple[str, ...]:
    """The placers that `try_quick` does not ask because the graph is too large for them to be quick."""
    return tuple(name for name, most in _MOST_OPS.items() if len(problem.graph) > most)


def best_quick(problem: Problem, seed: int = 0) -> Tried:
    """The better one of single and m-etf: what is less over the caps, and of those the shorter one."""
    found = _tried(problem, (Single(), Etf()), seed)
    return min(found, key=lambda t: (t.outcome.over_bytes, t.outcome.objective_seconds))


def _tried(problem: Problem, placers: Iterable[Placer], seed: int) -> Iterator[Tried]:
    views, is_large = tuple(variants(problem)), _is_large(problem)
    for placer in placers:
        all_views = placer.coarsens and not (is_large and placer.name == Topo.name)
        lifted = chain.from_iterable(placer.lifted(view, seed) for view in (views if all_views else views[:1]))
        best = best_of(problem, lifted)
        yield Tried(placer.name, Outcome(to_seconds(best.score[1]), best.score[0]))


def _is_large(problem: Problem) -> bool:
    """Whether a placer's second thoughts on it would take longer than all else that a report says."""
    return len(problem.graph) > _LARGE
