"""Fusion: ops of one colocation group become one op, without ever making a cycle.

Contracting an edge u -> v makes a cycle exactly when another path leads from u to v. If v is u's
only successor, or u is v's only predecessor, none can (Baechi, extended version, section 3); the
rule is checked on the graph as contracted so far, so that it stays exact as ops grow together.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from baechi.errors import BaechiError
from baechi.ir.graph import Graph
from baechi.ir.op import Op
from baechi.passes.fused import fused_graph

__all__ = ["Coarse", "fuse"]

Seconds = Callable[[Op], float]


@dataclass(frozen=True, eq=False)
class Coarse:
    """A smaller graph and what it stands for.

    Args:
        graph: ops of kind ``fused`` among ops that stayed as they were.
        members: by op of `graph`, the names of the ops that it stands for, in topological order.
    """

    graph: Graph
    members: Mapping[str, tuple[str, ...]]

    def expand(self, device: Mapping[str, str]) -> dict[str, str]:
        """Devices of the ops that were fused, from those of the ops of `graph`.

        Raises:
            BaechiError: B405 when an op of `graph` has no device.
        """
        for name in self.members:
            if name not in device:
                raise BaechiError("B405", f"op '{name}' has no device", help="place every op of the coarse graph")
        return {member: device[name] for name, members in self.members.items() for member in members}


def fuse(graph: Graph, *, seconds: Seconds | None = None, delay_seconds: float = 0.0) -> Coarse:
    """Fuse ops along edges inside their colocation groups, as far as no cycle can arise.

    Forward, backward and update ops stay apart. Times, FLOPs, bytes moved and persistent bytes add
    up; the activations that a fused op keeps to itself count as its working memory.

    Args:
        graph: with the groups that say what may be fused.
        seconds: time of an op; without it a fused op has a declared time only when all its
            members have one.
        delay_seconds: the longest that one fusion may hold up work that need not wait: readers of the
            first part, or the first part itself when the second waits for something else. At 0 any
            schedule of the fused graph is one of the graph, no longer; infinity fuses all it can.

    Example:
        >>> from baechi.ir.op import Tensor
        >>> a = Op("a", "mm", outputs=(Tensor("x", 8),), seconds=1.0, group="a")
        >>> b = Op("b", "relu", inputs=("x",), outputs=(Tensor("y", 4, keep=True),), seconds=2.0, group="a")
        >>> coarse = fuse(Graph((a, b)))
        >>> coarse.members, coarse.graph.ops[0].seconds, coarse.graph.ops[0].temp_bytes
        ({'a': ('a', 'b')}, 3.0, 8)
        >>> coarse.expand({"a": "cuda:0"})
        {'a': 'cuda:0', 'b': 'cuda:0'}
    """
    contraction = _Contraction(graph, seconds, delay_seconds)
    contraction.run()
    parts: dict[int, list[Op]] = {}
    for i in graph.order:
        parts.setdefault(contraction.find(i), []).append(graph.ops[i])
    return Coarse(*fused_graph(graph, list(parts.values()), seconds))


class _Contraction:
    """The graph while edges are contracted; nodes by op index, neighbours in dicts for a fixed order."""

    def __init__(self, graph: Graph, seconds: Seconds | None, delay_seconds: float) -> None:
        index = graph.index
        n = len(graph)
        self.parent = list(range(n))
        self.key = [(graph.group_of(op), op.phase) for op in graph.ops]
        self.work = [(op.seconds or 0.0) if seconds is None else seconds(op) for op in graph.ops]
        self.delay_seconds = delay_seconds
        self.out: list[dict[int, None]] = [{} for _ in range(n)]
        self.into: list[dict[int, None]] = [{} for _ in range(n)]
        for i, op in enumerate(graph.ops):
            for j in (*(index[graph.producer[name].name] for name in op.inputs), *(index[a] for a in op.after)):
                self.out[j][i] = None
                self.into[i][j] = None
        self.ready = [False] * n  # there from the start wherever its group is, so that nothing there waits for it
        for i in graph.order:
            self.ready[i] = self.work[i] == 0.0 and all(self._is_ready_for(j, i) for j in self.into[i])
        self.queue = deque((j, i) for i in graph.order for j in self.into[i])

    def find(self, i: int) -> int:
        parent = self.parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def run(self) -> None:
        while self.queue:
            u, v = map(self.find, self.queue.popleft())
            if u != v and self.key[u] == self.key[v] and self._is_safe(u, v):
                self._contract(u, v)

    def _is_safe(self, u: int, v: int) -> bool:
        """Whether contracting u -> v makes no cycle and holds nothing up."""
        only_reader, only_source = len(self.out[u]) == 1, len(self.into[v]) == 1
        if not (only_reader or only_source):
            return False
        read_elsewhere = 0.0 if only_reader else self.work[v]
        waits_longer = 0.0 if all(self._is_ready_for(x, v) for x in self.into[v] if x != u) else self.work[u]
        return max(read_elsewhere, waits_longer) <= self.delay_seconds

    def _is_ready_for(self, x: int, v: int) -> bool:
        """Whether `v` never waits for `x`: not even a transfer, as one from another group would need."""
        return self.ready[x] and self.key[x][0] == self.key[v][0]

    def _contract(self, u: int, v: int) -> None:
        """Make one node of `u` and `v`; queue the edges that this may have made contractible."""
        del self.out[u][v], self.into[v][u]
        keep, gone = (u, v) if self._degree(u) >= self._degree(v) else (v, u)
        self.parent[gone] = keep
        self.work[keep] += self.work[gone]
        self.ready[keep] = self.ready[keep] and self.ready[gone]
        for x in self.out[gone]:
            del self.into[x][gone]
            if keep in self.into[x] and len(self.into[x]) == 1:
                self.queue.append((keep, x))
            self.into[x][keep] = None
            self.out[keep][x] = None
        for x in self.into[gone]:
            del self.out[x][gone]
            if keep in self.out[x] and len(self.out[x]) == 1:
                self.queue.append((x, keep))
            self.out[x][keep] = None
            self.into[keep][x] = None
        if len(self.out[keep]) == 1:
            self.queue.append((keep, next(iter(self.out[keep]))))
        if len(self.into[keep]) == 1:
            self.queue.append((next(iter(self.into[keep])), keep))

    def _degree(self, i: int) -> int:
        return len(self.out[i]) + len(self.into[i])
