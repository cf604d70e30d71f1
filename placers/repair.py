"""Mending a schedule that is over a memory cap."""

from collections.abc import Iterator

from baechi.placers.search import improve, tries_for
from baechi.placers.segments import splits
from baechi.placers.variants import Variant
from baechi.sim.evaluate import Schedule, score

__all__ = ["repair"]


def repair(view: Variant, schedule: Schedule, seed: int) -> Schedule:
    """Search for a schedule within all caps, from one start after the other until one is found.

    The starts: the schedule itself, its placement run in program order (which holds the fewest
    activations), and the best split of the topological order.

    Returns:
        The best schedule of the whole step that was seen; it may still be over a cap.
    """
    a = view.whole.arrays
    best = schedule
    for start in _starts(view, schedule):
        mended = improve(a, start, tries=max(150, tries_for(a)), seed=seed)
        best = min(best, start, mended, key=lambda one: score(a, one))
        if score(a, best)[0] == 0:
            break
    return best


def _starts(view: Variant, schedule: Schedule) -> Iterator[Schedule]:
    a = view.whole.arrays
    yield schedule
    yield Schedule(schedule.device, a.order)
    yield min(view.lifted(splits(view.problem)), key=lambda whole: score(a, whole))
