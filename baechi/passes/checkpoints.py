"""Where a forward pass may be cut, so that only what crosses the cuts is kept for the backward pass."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from baechi.ir.graph import Graph
from baechi.ir.op import Op
from baechi.passes.again import is_late, is_view
from baechi.passes.recompute import remade, repeatable
from baechi.passes.storage import storage

__all__ = ["Activations", "Segment"]

Seconds = Callable[[Op], float]


class Segment(NamedTuple):
    """A stretch of the forward pass that can be made again as a whole.

    Attributes:
        ops: to recompute.
        nbytes: that need not be kept then.
        seconds: that their second run takes.
    """

    ops: tuple[str, ...]
    nbytes: int
    seconds: float


class Activations:
    """The forward pass as a sequence of ops, with what each makes for the backward pass.

    Args:
        graph: a training step.
        seconds: time of an op.
    """

    def __init__(self, graph: Graph, seconds: Seconds) -> None:
        self.graph = graph
        self.repeatable = repeatable(graph)
        self.order = tuple(op for i in graph.order if (op := graph.ops[i]).phase == "forward" and op.inputs)
        self.seconds = {op.name: seconds(op) for op in self.order}
        self.bases = storage(graph)
        self.late = frozenset(self.bases[name] for op in graph.ops if is_late(op) for name in op.inputs)
        self.at = {op.name: k for k, op in enumerate(self.order)}

    @cached_property
    def owned(self) -> dict[str, tuple[str, ...]]:
        """By op of the forward pass, the tensors whose memory it makes."""
        return {op.name: tuple(t.name for t in op.outputs if t.alias_of is None) for op in self.order}

    @cached_property
    def saved(self) -> NDArray[np.int64]:
        """Bytes that each op of `order` makes and the backward pass reads."""
        tensor = self.graph.tensor
        sums = [sum(tensor[t].nbytes for t in self.owned[op.name] if t in self.late) for op in self.order]
        return np.array(sums, np.int64)

    @cached_property
    def total_bytes(self) -> int:
        """All that is kept for the backward pass."""
        return int(self.saved.sum())

    @cached_property
    def _last(self) -> dict[str, int]:
        """By tensor with memory of its own, the position of the last forward op that reads it or a view of it."""
        last: dict[str, int] = {}
        for k, op in enumerate(self.order):
            for name in op.inputs:
                last[self.bases[name]] = k
        return last

    @cached_property
    def crossing(self) -> NDArray[np.int64]:
        """Bytes that are made up to each op of `order` and read by later ones."""
        change = np.zeros(len(self.order) + 1, np.int64)
        for k, op in enumerate(self.order):
            for name in self.owned[op.name]:
                if self._last.get(name, k) > k:
                    change[k] += self.graph.tensor[name].nbytes
                    change[self._last[name]] -= self.graph.tensor[name].nbytes
        return np.cumsum(change)[:-1]

    def cuts(self, nbytes: int) -> tuple[int, ...]:
        """Positions in `order` behind which to cut, so that about so many saved bytes lie between two.

        Each cut is where the fewest bytes cross, in the second half of what a segment may take.
        """
        cuts: list[int] = []
        begin, held = 0, 0
        half: int | None = None
        for k in range(len(self.order)):
            held += int(self.saved[k])
            if half is None and 2 * held >= nbytes:
                half = k
            if held >= nbytes and half is not None:
                window = self.crossing[half : k + 1]
                cut = half + int(len(window) - 1 - window[::-1].argmin())
                cuts.append(cut)
                begin, half = cut + 1, None
                held = int(self.saved[begin : k + 1].sum())
        return tuple(cuts)

    def segments(self, nbytes: int, least: float = 0.0) -> tuple[Segment, ...]:
        """What to recompute between cuts; what follows the last cut is needed at once, and kept.

        Args:
            nbytes: of what the backward pass needs of a segment.
            least: bytes a second: an op that makes fewer in its time is not run again.
        """
        cuts = self.cuts(nbytes)
        stay = self._crossing(cuts)
        bounds = [0, *(cut + 1 for cut in cuts)]
        parts = [
            [
                op
                for op in self.order[a:b]
                if op.name in self.repeatable and op.name not in stay and self._pays(op, least)
            ]
            for a, b in pairwise(bounds)
        ]
        chosen = {op.name for part in parts for op in part}
        needed = self._needed(chosen)
        found = (self._segment([op for op in part if op.name in needed], chosen) for part in parts)
        return tuple(segment for segment in found if segment.nbytes > 0)

    def _pays(self, op: Op, least: float) -> bool:
        made = sum(self.graph.tensor[t].nbytes for t in self.owned[op.name])
        return is_view(op) or made >= least * self.seconds[op.name]

    def _crossing(self, cuts: Sequence[int]) -> frozenset[str]:
        """The ops that make what crosses a cut."""
        found = set()
        for k, op in enumerate(self.order):
            after = bisect_left(cuts, k)
            if after < len(cuts) and any(self._last.get(name, k) > cuts[after] for name in self.owned[op.name]):
                found.add(op.name)
        return frozenset(found)

    def _needed(self, chosen: Iterable[str]) -> frozenset[str]:
        """Those of the chosen ops whose results the backward pass or another of them needs."""
        among = frozenset(chosen)
        wanted = {name for op in self.graph.ops if is_late(op) for name in op.inputs}
        needed = set()
        for op in reversed(self.order):
            if op.name in among and any(t.name in wanted for t in remade(op)):
                needed.add(op.name)
                wanted.update(op.inputs)
        return frozenset(needed)

    def _segment(self, ops: Sequence[Op], chosen: Iterable[str]) -> Segment:
        tensor, producer = self.graph.tensor, self.graph.producer
        saved = sum(t.nbytes for op in ops for t in remade(op) if t.alias_of is None and t.name in self.late)
        read = dict.fromkeys(self.bases[name] for op in ops for name in op.inputs)
        kept = [name for name in read if name not in self.late and producer[name].name not in chosen]
        kept = [name for name in kept if producer[name].name in self.at]
        seconds = sum(self.seconds[op.name] for op in ops)
        return Segment(tuple(op.name for op in ops), saved - sum(tensor[name].nbytes for name in kept), seconds)
