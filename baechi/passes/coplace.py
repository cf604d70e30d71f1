"""Co-placement: grow colocation groups where sending a tensor costs more than running in parallel gains.

Baechi puts every op whose output has one reader into the reader's group, whatever the two cost: a
block of parallel branches becomes one group and runs serially. Here groups grow along a schedule
on as many devices as there are groups, as in dominant sequence clustering (Yang and Gerasoulis
1994): an op joins the group of the input that it waits for longest, and only if it then starts no
later than on a device of its own. Parallel branches therefore stay apart.

Four conditions keep the groups good for few devices, where a group is placed with its first op:

- nobody outside the two groups reads the input;
- the merge pays: their work, of which splitting them over two devices could save half at the most,
  is small beside the time that they would spend on sending;
- no group grows beyond a share of the step's work, or of its bytes;
- what costs nothing joins the neighbour that decides about it, never one that comes later.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import ClassVar

from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.passes.clusters import Clusters

__all__ = ["CoPlace", "co_place"]

_STATE = ("buffer", "constant", "input", "parameter", "tangent")


@dataclass(frozen=True, slots=True)
class CoPlace:
    """Merge colocation groups where that shortens the step.

    Args:
        seconds: time of an op.
        transfer_seconds: time of one transfer of a tensor.
        limit: the largest share of the step's work, and of its bytes, that a group may grow to: a
            quarter of a device's share is 1 / (4 * devices).
        ratio: the most work that two merged groups may have, as a multiple of the time in which they
            would send each other their tensors; above 0.5 coarser, at the cost of a longer step.
        tiny_seconds: ops of at most this time (views, shape arithmetic) join a neighbour in any case.
    """

    name: ClassVar[str] = "coplace"
    seconds: Callable[[Op], float]
    transfer_seconds: Callable[[Tensor], float]
    limit: float = 1 / 16
    ratio: float = 0.5
    tiny_seconds: float = 0.0

    def __call__(self, graph: Graph) -> Graph:
        return co_place(graph, self)


def co_place(graph: Graph, options: CoPlace) -> Graph:
    """Merge colocation groups where that shortens the step, in O((V + E) log V) time.

    Example:
        >>> a = Op("a", "mm", outputs=(Tensor("x", 8),))
        >>> b = Op("b", "mm", inputs=("x",))
        >>> dear, cheap = (CoPlace(lambda op: 1.0, lambda t, s=s: s, limit=1.0) for s in (5.0, 0.1))
        >>> [op.group for op in co_place(Graph((a, b)), dear).ops]
        ['a', 'a']
        >>> [op.group for op in co_place(Graph((a, b)), cheap).ops]
        [None, None]
    """
    growth = _Growth(graph, options)
    growth.join_tiny()
    growth.grow()
    return growth.clusters.graph()


class _Growth:
    """Groups while they grow; ops by index, groups by the index that `Clusters.find` gives."""

    def __init__(self, graph: Graph, options: CoPlace) -> None:
        n = len(graph)
        self.graph = graph
        self.tiny, self.ratio = options.tiny_seconds, options.ratio
        self.clusters = Clusters(graph)
        self.find = self.clusters.find
        self.cost = [options.seconds(op) for op in graph.ops]
        self.before: list[dict[int, float]] = [{} for _ in range(n)]  # seconds of transfer, by input op
        self.readers: list[dict[int, None]] = [{} for _ in range(n)]
        self._link(options.transfer_seconds)
        self.constant = [False] * n  # there from the start, and so free to sit with whoever reads it
        for i in graph.order:
            light = self.cost[i] <= self.tiny or graph.ops[i].kind in _STATE
            self.constant[i] = light and all(self.constant[j] for j in self.before[i])
        self.dearest = [
            max((s for j, s in before.items() if not self.constant[j]), default=0.0) for before in self.before
        ]
        self.work, self.nbytes = [0.0] * n, [0] * n
        for i, op in enumerate(graph.ops):
            root = self.find(i)
            self.work[root] += self.cost[i]
            self.nbytes[root] += op.persistent_bytes + sum(t.nbytes - t.held for t in op.outputs if t.alias_of is None)
        self.most_work = options.limit * sum(self.cost)
        self.most_bytes = max(options.limit * sum(self.nbytes), max(self.nbytes, default=0))
        self.finish = [0.0] * n
        self.free = [0.0] * n  # by group: when its device is next free
        self.busy = [0.0] * n  # by group: work that is scheduled already

    def _link(self, transfer_seconds: Callable[[Tensor], float]) -> None:
        ops = self.graph.ops
        index = {op.name: i for i, op in enumerate(ops)}
        source = {t.name: (i, transfer_seconds(t)) for i, op in enumerate(ops) for t in op.outputs}
        for before, op in zip(self.before, ops, strict=True):
            before |= dict.fromkeys((index[name] for name in op.after), 0.0)
            for j, seconds in (source[name] for name in op.inputs):
                before[j] = before.get(j, 0.0) + seconds
        for i, before in enumerate(self.before):
            for j in before:
                self.readers[j][i] = None

    def join_tiny(self) -> None:
        """What costs next to nothing joins its reader or its input, if there is one such group."""
        for i in reversed(self.graph.order):
            if self.constant[i] or (self._is_tiny(i) and self._leads(i)):
                self._join_only(i, self.readers[i])
        for i in self.graph.order:
            if self._is_tiny(i) and not self.constant[i]:
                self._join_only(i, [j for j in self.before[i] if not self.constant[j]])

    def _is_tiny(self, i: int) -> bool:
        return self.work[self.find(i)] <= self.tiny

    def _leads(self, i: int) -> bool:
        """Whether no reader of `i` is of another phase or waits for anything dearer."""
        ops = self.graph.ops
        return all(ops[r].phase == ops[i].phase and self.dearest[r] <= self.before[r][i] for r in self.readers[i])

    def _join_only(self, i: int, neighbours: Iterable[int]) -> None:
        own = self.find(i)
        around = dict.fromkeys(root for root in map(self.find, neighbours) if root != own)
        if len(around) == 1:
            (other,) = around
            if self._has_room(own, other):
                self._merge(own, other)

    def grow(self) -> None:
        """Schedule the ops, those farthest from the end first, and merge on the way."""
        self.origin = [self.find(i) for i in range(len(self.cost))]
        self.traffic = self._traffic()
        level = self._levels()
        waiting = [len(before) for before in self.before]
        ready = [(-level[i], i) for i, count in enumerate(waiting) if count == 0]
        heapify(ready)
        while ready:
            _, i = heappop(ready)
            self._schedule(i)
            for j in self.readers[i]:
                waiting[j] -= 1
                if waiting[j] == 0:
                    heappush(ready, (-level[j], j))

    def _traffic(self) -> dict[tuple[int, int], float]:
        """Seconds of transfer between two groups, both ways."""
        traffic: defaultdict[tuple[int, int], float] = defaultdict(float)
        for i, before in enumerate(self.before):
            for j, seconds in before.items():
                traffic[_pair(self.origin[i], self.origin[j])] += seconds
        return traffic

    def _levels(self) -> list[float]:
        """The longest way from the start of each op to the end of the step (b-level)."""
        level = self.cost.copy()
        for i in reversed(self.graph.order):
            for j, seconds in self.before[i].items():
                sent = 0.0 if self.origin[i] == self.origin[j] else seconds
                level[j] = max(level[j], self.cost[j] + sent + level[i])
        return level

    def _schedule(self, i: int) -> None:
        own = self.find(i)
        start = self._start(i, own, own)
        arrivals = sorted(self.before[i], key=lambda j: (-self.finish[j] - self.before[i][j], j))
        if arrivals and self.busy[own] == 0.0:
            other = self.find(arrivals[0])
            if self._pays(arrivals[0], i) and self._start(i, own, other) <= start:
                own = self._merge(own, other)
                start = self._start(i, own, own)
        for j in arrivals:
            if self.constant[j] and self.busy[self.find(j)] == 0.0 and self._pays(j, i):
                own = self._merge(own, self.find(j))
        start = min(start, self._start(i, own, own))
        for j in arrivals:
            start = self._absorb(j, i, start)
        own = self.find(i)
        self.finish[i] = self.free[own] = start + self.cost[i]
        self.busy[own] += self.cost[i]

    def _start(self, i: int, own: int, other: int) -> float:
        """When op `i` of group `own` would start if `own` and `other` were one group."""
        local = (own, other)
        arrivals = (self.finish[j] + (0.0 if self.find(j) in local else s) for j, s in self.before[i].items())
        return max(self.free[own], self.free[other], max(arrivals, default=0.0))

    def _absorb(self, j: int, i: int, start: float) -> float:
        """Bring input `j` into the group of `i` unless that delays `i`; returns when `i` starts."""
        own, other = self.find(i), self.find(j)
        alone = self.work[other] <= self.cost[j] and any(self.find(k) == own for k in self.before[j])
        if not (alone and self._pays(j, i)):
            return start
        end = self._start(j, own, own) + self.cost[j]
        rest = (self.finish[k] + (0.0 if self.find(k) == own else s) for k, s in self.before[i].items() if k != j)
        new = max(end, max(rest, default=0.0))
        if new > start:
            return start
        own = self._merge(own, other)
        self.finish[j] = self.free[own] = end
        return new

    def _pays(self, j: int, i: int) -> bool:
        """Whether the group of input `j` may and should be merged with that of its reader `i`."""
        a, b = self.find(j), self.find(i)
        if a == b or not self._has_room(a, b):
            return False
        if min(self.work[a], self.work[b]) <= self.tiny:
            return True
        merged = self.work[a] + self.work[b]
        sent = self.traffic[_pair(self.origin[j], self.origin[i])]
        return merged <= self.ratio * sent and all(self.find(r) in (a, b) for r in self.readers[j])

    def _has_room(self, a: int, b: int) -> bool:
        light = min(self.work[a], self.work[b]) <= self.tiny or self.work[a] + self.work[b] <= self.most_work
        small = min(self.nbytes[a], self.nbytes[b]) == 0 or self.nbytes[a] + self.nbytes[b] <= self.most_bytes
        return light and small

    def _merge(self, a: int, b: int) -> int:
        root = self.clusters.union(a, b)
        for values in (self.work, self.busy):
            values[root] = values[a] + values[b]
        self.nbytes[root] = self.nbytes[a] + self.nbytes[b]
        self.free[root] = max(self.free[a], self.free[b])
        return root


def _pair(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)
