"""Time for memory: which activations to recompute or offload so that a step fits.

An option is a whole rewritten graph, and the one simulator judges it. The forward pass is cut where
little crosses, at several grains, and a segment between two cuts is made again as a whole (Chen et
al. 2016), or without the ops that take long for the bytes they make. Tensors that are kept may be
offloaded. Of each such family the units with the most bytes a second are taken until the step
fits, then those that turn out not to be needed are dropped again, the dearest first.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from baechi.cost.compute import op_seconds
from baechi.cost.problem import Ints, Problem
from baechi.errors import BaechiError, Infeasible
from baechi.ir.cluster import Cluster
from baechi.ir.graph import Graph
from baechi.ir.op import Op
from baechi.ir.plan import Plan
from baechi.passes.checkpoints import Activations
from baechi.passes.lighten import Lighten, in_modules
from baechi.passes.offload import offloadable
from baechi.placers.base import Placer, best_of, make_plan
from baechi.placers.fixed import Contiguous, Single
from baechi.placers.variants import Found, variants
from baechi.placers.watch import Progress
from baechi.sim.evaluate import Schedule

__all__ = ["Lighter", "lighter"]

_GRAINS = (2, 4, 8, 16, 32, 64)
"""Into about how many segments the forward pass is cut."""
_SHARES = (0.0, 0.25, 1.0, 4.0)
"""Bytes a second, as a share of the whole forward pass's, from which on an op is run again."""
_TRIES = 4
_STEPS = 16
_DROPS = 8
_FINAL = 2
_ROOM = 0.7
_SMALLEST = 1 / 1024
"""Of all that is kept: a smaller tensor is not worth an op of its own."""


class Lighter(NamedTuple):
    """A graph that was made to fit, what was done to it, and its plan."""

    graph: Graph
    made: Lighten
    plan: Plan


class _Unit(NamedTuple):
    """What is done together or not at all."""

    made: Lighten
    nbytes: int
    seconds: float


class _Option(NamedTuple):
    """A choice of units, and what the quick judge says of it: bytes over the caps, then ticks."""

    score: tuple[int, int]
    units: tuple[_Unit, ...]


def lighter(
    problem: Problem,
    placer: Placer,
    *,
    recompute: str = "off",
    offload: str = "off",
    seed: int = 0,
    show: Callable[[Progress], None] | None = None,
) -> Lighter:
    """Place a step, and let it take more time for less memory where that is allowed and helps.

    With ``auto`` nothing is done to a step that fits with room to spare.

    Args:
        problem: a training step on devices with memory in bytes.
        placer: which places what comes out.
        recompute: ``off``, ``auto``, or a pattern of module paths of which only the results are kept.
        offload: ``off`` or ``auto``.
        seed: of the placer's random choices.
        show: called now and then while the placer searches.

    Raises:
        Infeasible: B501 when no plan can fit, B502 when none was found.
        BaechiError: B111 on another word for `offload`, or when a device has no host to offload to; B112 when no
            module has such a path.
    """
    _check(problem.cluster, offload)
    base = Lighten() if recompute in ("off", "auto") else Lighten(recompute=in_modules(problem.graph, recompute))
    return _Search(problem, placer, base, recompute == "auto", offload == "auto", seed, show).run()


def _check(cluster: Cluster, offload: str) -> None:
    if offload not in ("off", "auto"):
        raise BaechiError("B111", f"'{offload}' says nothing about offloading", help="write auto or off")
    lacking = [d.name for d in cluster.devices if d.host_bytes_per_second == 0]
    if offload == "auto" and lacking:
        raise BaechiError(
            "B111",
            f"'{lacking[0]}' has no memory beside its own, so there is nowhere to offload to",
            help="leave --offload out, or try --recompute auto",
        )


@dataclass(frozen=True, eq=False)
class _Search:
    plain: Problem
    placer: Placer
    base: Lighten
    recompute: bool
    offload: bool
    seed: int
    show: Callable[[Progress], None] | None

    def run(self) -> Lighter:
        """The plain step when it fits with room; else the best of the options that fit."""
        try:
            plain = self._placed(())
        except Infeasible as error:
            if not (self.recompute or self.offload):
                raise
            return self._fitting(error)
        if not (self.recompute or self.offload) or len(self.plain.cluster) == 1 or self._is_roomy(plain.plan):
            return plain
        return min([plain, *self._better()], key=lambda found: found.plan.objective_seconds)

    def _fitting(self, failure: Infeasible) -> Lighter:
        """The best plan of the lightest options that fit, and of the nearest that the quick judge found too large."""
        need = self._judged(()).score[0]
        options: list[_Option] = []
        for units, count in self._promising(need):
            options.append(self._least(units, count))
            if sum(option.score[0] == 0 for option in options) == _TRIES:
                break
        found: list[Lighter] = []
        for option in sorted(options, key=lambda o: o.score)[: 2 * _FINAL]:
            try:
                found.append(self._placed(self._without_needless(option).units))
            except Infeasible as error:
                failure = error if failure.proved else failure
            if len(found) == _FINAL:
                break
        if not found:
            raise failure
        return min(found, key=lambda one: one.plan.objective_seconds)

    def _better(self) -> Iterator[Lighter]:
        """Plans of lighter steps, for a step that fits but is cramped."""
        cheap = sorted(self._families(), key=lambda units: sum(u.seconds for u in units))
        options = [self._judged(units) for units in cheap[:_TRIES]]
        for option in sorted(options, key=lambda o: o.score)[:_FINAL]:
            try:
                yield self._placed(option.units)
            except Infeasible:
                continue

    def _promising(self, need: int) -> list[tuple[tuple[_Unit, ...], int]]:
        """Families with how many units should save so many bytes; those that should take the least time first."""

        def guess(units: Sequence[_Unit]) -> tuple[int, float]:
            saved = accumulate(u.nbytes for u in units)
            count = next((k for k, nbytes in enumerate(saved, 1) if nbytes >= need), len(units))
            return count, sum(u.seconds for u in units[:count])

        guesses = [(guess(units), units) for units in self._families()]
        short = {id(units): sum(u.nbytes for u in units) < need for _, units in guesses}
        guesses.sort(key=lambda one: (short[id(one[1])], one[0][1]))
        return [(units, count) for (count, _), units in guesses]

    def _is_roomy(self, plan: Plan) -> bool:
        peaks = plan.predicted.peak_bytes
        return all(peaks[d.name] <= _ROOM * d.cap for d in self.plain.cluster.devices)

    def _least(self, units: tuple[_Unit, ...], count: int) -> _Option:
        """About the fewest units of a family, best first, that fit; when even all do not, all."""
        low, high, best = 0, len(units), None
        while high - low > max(1, len(units) // _STEPS) or best is None:
            tried = self._judged(units[:count])
            if tried.score[0] == 0:
                best, high = tried, count
            elif count == len(units):
                return tried
            else:
                low = count
            count = (low + high) // 2 if best is not None else min(len(units), max(2 * count, low + 1))
        return best

    def _without_needless(self, option: _Option) -> _Option:
        """Drop what is not needed, the dearest first."""
        for unit in sorted(option.units, key=lambda u: -u.seconds)[:_DROPS]:
            tried = self._judged([u for u in option.units if u is not unit])
            if tried.units and tried.score <= option.score:
                option = tried
        return option

    def _judged(self, units: Sequence[_Unit]) -> _Option:
        """Units with the score of the best placement of the graph that they make, of those of the plain one.

        A copy goes where the original is, and what is offloaded is so where it is made.
        """
        problem = replace(self.plain, graph=self._made(units)(self.plain.graph))
        graph, a = problem.graph, problem.arrays
        index = self.plain.graph.index

        def origin(op: Op) -> int:
            if op.name in index:
                return index[op.name]
            return index[op.forward if op.forward else graph.producer[op.inputs[0]].name]

        source = np.array([origin(op) for op in graph.ops], np.int64)
        best = best_of(problem, (Schedule(device[source], a.order) for device in self.placements))
        return _Option(best.score, tuple(units))

    @cached_property
    def placements(self) -> tuple[Ints, ...]:
        """Devices of the plain ops: all on one, and cuts of the forward pass that backward follows."""
        *_, view = variants(self.plain)
        found: list[Found] = [*Single().schedules(self.plain, self.seed)]
        if len(self.plain.cluster) > 1:
            found += map(view.lift, Contiguous().schedules(view.problem, self.seed))
        return tuple({one.device.tobytes(): one.device for one in found}.values())

    def _placed(self, units: Sequence[_Unit]) -> Lighter:
        made = self._made(units)
        problem = replace(self.plain, graph=made(self.plain.graph))
        return Lighter(problem.graph, made, make_plan(self.placer, problem, self.seed, self.show))

    def _made(self, units: Sequence[_Unit]) -> Lighten:
        again = (*self.base.recompute, *(name for u in units for name in u.made.recompute))
        away = (*self.base.offload, *(name for u in units for name in u.made.offload))
        return Lighten(tuple(dict.fromkeys(again)), tuple(dict.fromkeys(away)))

    def _families(self) -> Iterator[tuple[_Unit, ...]]:
        """Families of units, in each the most bytes a second first."""
        seen = set()
        for again in (*self._recomputed(), ()) if self.recompute else ((),):
            for away in (False, True) if self.offload else (False,):
                units = (*again, *(self._offloaded(again) if away else ()))
                units = tuple(sorted(units, key=lambda u: -u.nbytes / max(u.seconds, 1e-12)))
                key = tuple(u.made for u in units)
                if units and key not in seen:
                    seen.add(key)
                    yield units

    def _recomputed(self) -> Iterator[tuple[_Unit, ...]]:
        known = self.activations
        rate = known.total_bytes / max(sum(known.seconds.values()), 1e-12)
        for grain in _GRAINS:
            for share in _SHARES:
                segments = known.segments(max(1, known.total_bytes // grain), share * rate)
                yield tuple(_Unit(Lighten(recompute=s.ops), s.nbytes, s.seconds) for s in segments)

    def _offloaded(self, again: Sequence[_Unit]) -> tuple[_Unit, ...]:
        """Tensors that stay when those units are made again; the earliest first, which waits longest."""
        gone = {name for u in again for name in u.made.recompute}
        least = _SMALLEST * self.activations.total_bytes
        units = []
        for name, op in offloadable(self.plain.graph).items():
            tensor = self.plain.graph.tensor[name]
            if op.name not in gone and op.name not in self.base.recompute and tensor.nbytes >= least:
                trip = replace(op, kind="fetch", moved_bytes=2 * tensor.nbytes, flops=0.0, key="", seconds=None)
                units.append(_Unit(Lighten(offload=(name,)), tensor.nbytes, 2 * self.seconds(trip)))
        return tuple(units)

    @cached_property
    def activations(self) -> Activations:
        return Activations(self.plain.graph, self.seconds)

    @cached_property
    def seconds(self) -> Callable[[Op], float]:
        device = self.plain.cluster.devices[0]
        return lambda op: op_seconds(op, device, self.plain.table)
