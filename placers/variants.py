"""The graphs that a placer looks at for one step: as it is, and with ops drawn together.

Drawing ops together makes a list scheduler's choices better where communication is dear, and can
make them worse; so the graph as it is always stays among the variants, and the simulator judges
all of them on it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from baechi.cost.problem import TOKEN, Arrays, Ints, Problem
from baechi.placers.clusters import first_members
from baechi.placers.colocated import colocated, marks_of
from baechi.placers.coplaced import co_placed
from baechi.placers.halves import forward_half
from baechi.placers.schedule import list_schedule
from baechi.sim.evaluate import Schedule
from baechi.units import TICKS_PER_SECOND

__all__ = ["Found", "Placement", "Variant", "bound_to", "variants", "views_and_owners"]

_GROUPS_PER_DEVICE = 4
_RATIO = 0.5


class Placement(NamedTuple):
    """What a placer decides that leaves to `bound_to` in which order the ops run.

    Attributes:
        device: (ops,) device of each op.
    """

    device: Ints


Found = Schedule | Placement


@dataclass(frozen=True)
class Variant:
    """A problem to place, and the way back to the whole step.

    Attributes:
        name: ``plain``, ``co-placed`` or ``forward``.
        problem: what the placer sees; its arrays, for its graph is that of the whole step.
        whole: the whole step, with what is drawn together as colocation groups.
        lift: turns what the placer found for it into the same for the whole step.
    """

    name: str
    problem: Problem
    whole: Problem
    lift: Callable[[Found], Found]

    @classmethod
    def plain(cls, problem: Problem) -> "Variant":
        """The problem itself."""
        return cls("plain", problem, problem, lambda found: found)

    def lifted(self, all_found: Iterable[Found]) -> Iterator[Schedule]:
        """Schedules of the whole step: of each placement those of `bound_to`, once."""
        seen = set()
        for found in map(self.lift, all_found):
            if isinstance(found, Schedule):
                yield found
            elif (key := found.device.tobytes()) not in seen:
                seen.add(key)
                yield from bound_to(self.whole, found.device)


def variants(problem: Problem) -> Iterator[Variant]:
    """The plain problem, and, of a training step, its co-placed and its forward-only form.

    A step without forward twins (a workload of another tool) is placed as it is: it says nothing
    about what belongs together.
    """
    yield Variant.plain(problem)
    if not any(map(attrgetter("forward"), problem.graph.ops)):
        return
    a, marks = problem.arrays, marks_of(problem.graph)
    phase = np.where(marks.forward, 0, np.where(marks.backward, 1, 2))
    labels = _drawn(problem, a, colocated(problem, marks), marks.given, phase)
    grouped = problem.with_groups(labels)
    yield Variant("co-placed", grouped, grouped, lambda found: found)
    half = forward_half(a, marks, *views_and_owners(problem))
    if half is None:
        return
    parent = first_members(half.arrays.group, len(half.arrays.group_ptr) - 1)
    labels = _drawn(problem, half.arrays, parent, marks.given[half.op], phase[half.op])
    forward = problem.with_arrays(half.arrays).with_groups(labels)
    whole = problem.with_groups(labels[half.follows])
    yield Variant("forward", forward, whole, lambda found: Placement(found.device[half.follows]))


def _drawn(problem: Problem, a: Arrays, parent: Ints, given: Ints, phase: Ints) -> Ints:
    limit = 1 / (_GROUPS_PER_DEVICE * len(a.cap))
    tiny = round(problem.cluster.devices[0].launch_seconds * TICKS_PER_SECOND)
    return co_placed(a, parent, given, phase, limit, _RATIO, tiny)


def views_and_owners(problem: Problem) -> tuple[Ints, Ints]:
    """(ops,) ops that make nothing but views of what they read, and (tensors,) whose memory each tensor lies in."""
    c, a = problem.graph.columns, problem.arrays
    number = np.flatnonzero(a.t_ticks != TOKEN)
    root = np.arange(len(a.t_op))
    root[number] = np.where(c.alias >= 0, number[c.alias], number)
    for _ in range(len(root).bit_length()):
        root = root[root]
    own = np.bincount(c.maker[c.alias < 0], minlength=len(a.rank))
    return (own == 0) & (np.diff(c.in_ptr) > 0), root


def bound_to(problem: Problem, device: Ints) -> tuple[Schedule, ...]:
    """Schedules of a placement that is given: in program order, and by earliest start unless it is over a cap in any."""
    a = problem.arrays
    natural = Schedule(device, a.order)
    if (np.bincount(device, a.persistent, len(a.cap)) > a.cap).any():
        return (natural,)
    homes = np.unique(device)
    bound = problem.with_groups(device).arrays
    listed = list_schedule(bound, np.full(len(device), -1, np.int64), homes, True)
    return natural, Schedule(device, listed.sequence), Schedule(device, listed.sequence, listed.sent)
