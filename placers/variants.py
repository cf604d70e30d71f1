"""The graphs that a placer looks at for one step: as it is, and with ops drawn together.

Drawing ops together makes a list scheduler's choices better where communication is dear, and can
make them worse; so the graph as it is always stays among the variants, and the simulator judges
all of them on it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from baechi.cost.compute import op_seconds
from baechi.cost.problem import Ints, Problem, group_labels
from baechi.ir.cluster import Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.passes import Colocate, CoPlace, forward_only, fuse, hosts
from baechi.placers.schedule import list_schedule
from baechi.sim.evaluate import Schedule

__all__ = ["Variant", "bound_to", "variants"]

_GROUPS_PER_DEVICE = 4


@dataclass(frozen=True)
class Variant:
    """A problem to place, and the way back to the whole step.

    Attributes:
        name: ``plain``, ``co-placed`` or ``forward``.
        problem: what the placer sees.
        whole: the whole step, with what is drawn together as colocation groups.
        lift: turns the placer's schedule into schedules of the whole step.
    """

    name: str
    problem: Problem
    whole: Problem
    lift: Callable[[Schedule], tuple[Schedule, ...]]

    @classmethod
    def plain(cls, problem: Problem) -> "Variant":
        """The problem itself."""
        return cls("plain", problem, problem, lambda schedule: (schedule,))


def variants(problem: Problem) -> Iterator[Variant]:
    """The plain problem, and, of a training step, its co-placed and its forward-only form.

    A step without forward twins (a workload of another tool) is placed as it is: it says nothing
    about what belongs together.
    """
    yield Variant.plain(problem)
    if not any(op.forward for op in problem.graph.ops):
        return
    costs = _Costs(problem)
    together = costs.co_place(Colocate(gradient=True, aliases=True, twins=True)(problem.graph))
    grouped = problem.with_groups(group_labels(together))
    yield Variant("co-placed", grouped, grouped, lambda schedule: (schedule,))
    host = hosts(problem.graph)
    declared = costs.declared if costs.uniform else None
    forward = fuse(costs.co_place(forward_only(problem.graph, seconds=declared)), seconds=declared)
    index = {name: k for k, op in enumerate(forward.graph.ops) for name in forward.members[op.name]}
    follows = np.array([index[host[op.name]] for op in problem.graph.ops], np.int64)
    lifted = Problem(forward.graph, problem.cluster, problem.table, problem.objective)
    whole = problem.with_groups(lifted.arrays.group[follows])
    yield Variant("forward", lifted, whole, lambda schedule: bound_to(problem, schedule.device[follows]))


def bound_to(problem: Problem, device: Ints) -> tuple[Schedule, ...]:
    """Schedules of a placement that is given: in program order, and by earliest start."""
    a = problem.arrays
    homes = np.unique(device)
    bound = problem.with_groups(device).arrays
    listed = list_schedule(bound, np.full(len(device), -1, np.int64), homes, True)
    natural = Schedule(device, a.order)
    return natural, Schedule(device, listed.sequence), Schedule(device, listed.sequence, listed.sent)


@dataclass(frozen=True)
class _Costs:
    """Times of ops and transfers on the first device and a typical link, for the passes."""

    problem: Problem

    def seconds(self, op: Op) -> float:
        return op_seconds(op, self.problem.cluster.devices[0], self.problem.table)

    def declared(self, op: Op) -> float:
        """The time to declare for an op so that its devices, all alike, take as long as it does."""
        return self.seconds(op) * self.problem.cluster.devices[0].speed

    @property
    def uniform(self) -> bool:
        """Whether all devices run every op equally fast."""
        ticks = self.problem.arrays.ticks
        return bool((ticks == ticks[:, :1]).all())

    def transfer_seconds(self, tensor: Tensor) -> float:
        return self._link.seconds(tensor.nbytes) if tensor.seconds is None else tensor.seconds

    @cached_property
    def _link(self) -> Link:
        cluster = self.problem.cluster
        return cluster.link_between(cluster.devices[0].name, cluster.devices[-1].name)

    def co_place(self, graph: Graph) -> Graph:
        limit = 1 / (_GROUPS_PER_DEVICE * len(self.problem.cluster))
        tiny = self.problem.cluster.devices[0].launch_seconds
        return CoPlace(self.seconds, self.transfer_seconds, limit, tiny_seconds=tiny)(graph)
