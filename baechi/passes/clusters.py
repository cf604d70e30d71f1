"""Sets of ops that will share a device, as they grow: union-find over the ops' indices."""

from dataclasses import replace

from baechi.ir.graph import Graph

__all__ = ["Clusters"]


class Clusters:
    """The colocation groups of a graph, which can be merged further.

    Args:
        graph: its groups are the clusters to start from.

    Example:
        >>> from baechi.ir.op import Op
        >>> clusters = Clusters(Graph((Op("a", "x", group="g"), Op("b", "x"), Op("c", "x", group="g"))))
        >>> clusters.find(2), clusters.find(1)
        (0, 1)
        >>> _ = clusters.union(1, 2)
        >>> [op.group for op in clusters.graph().ops]
        ['a', 'a', 'a']
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._parent = list(range(len(graph)))
        index = {op.name: i for i, op in enumerate(graph.ops)}
        for ops in graph.groups.values():
            first = index[ops[0].name]
            for op in ops[1:]:
                self._parent[index[op.name]] = first

    def find(self, i: int) -> int:
        """The cluster of op `i`: the lowest index among its members."""
        parent = self._parent
        root = i
        while parent[root] != root:
            root = parent[root]
        while parent[i] != root:
            parent[i], i = root, parent[i]
        return root

    def union(self, i: int, j: int) -> int:
        """Merge two ops' clusters; returns the merged one."""
        a, b = sorted((self.find(i), self.find(j)))
        self._parent[b] = a
        return a

    def graph(self) -> Graph:
        """The graph with the clusters as its groups, each named after its first op in program order."""
        roots = [self.find(i) for i in range(len(self._parent))]
        size = [0] * len(roots)
        for root in roots:
            size[root] += 1
        names = [self._graph.ops[r].name if size[r] > 1 else None for r in roots]
        ops = self._graph.ops
        return self._graph.with_ops(
            op if op.group == name else replace(op, group=name) for op, name in zip(ops, names, strict=True)
        )
