"""Tensors that are made a second time for the backward pass, so that what forward made can be let go."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from baechi.ir.graph import Graph
from baechi.ir.op import Op
from baechi.passes.storage import storage

__all__ = ["is_late", "is_view", "made_again", "written"]


def is_late(op: Op) -> bool:
    """Whether an op belongs to the backward pass; the update reads what forward made as soon as it is there."""
    return op.phase == "backward"


def is_view(op: Op) -> bool:
    """Whether an op only looks at memory in another way, and costs nothing."""
    costs = op.flops or op.moved_bytes or op.temp_bytes or op.persistent_bytes or op.seconds
    return bool(op.outputs) and not costs and all(t.alias_of is not None for t in op.outputs)


def written(graph: Graph) -> frozenset[str]:
    """The tensors whose memory some op overwrites in place, by the tensor that owns it."""
    bases = storage(graph)
    return frozenset(bases[t.name] for op in graph.ops if not is_view(op) for t in op.outputs if t.alias_of is not None)


def made_again(
    graph: Graph, late: Sequence[Op], again: Mapping[str, str], early: Mapping[str, Sequence[Op]] | None = None
) -> Graph:
    """The graph with ops that make tensors again for their backward readers.

    Each new op is held back until its first reader is about to run: it waits for the gradients that
    this reader reads, and for the forward readers of what it makes again. So what forward made has
    ended before, in any order of the ops. An update that had to wait for an op waits for its copy too,
    so a new op waits for nothing that comes behind such an update.

    The new edges cannot make a cycle: give a new op the place right before the first of its readers
    in the topological order; then every edge leads onwards, but for those to the updates, from which
    nothing leads back to a new op.

    Args:
        graph: a training step.
        late: the new ops, each behind those of them that it reads; `Op.forward` names the op that
            made the same before.
        again: by tensor, the one that its backward readers now read.
        early: by forward op, new ops that stand right behind it.
    """
    weaver = _Weaver(graph, late, again)
    early = early or {}
    waiting = weaver.by_reader()
    ops: list[Op] = []
    for op in graph.ops:
        ops += (weaver.held_back(one) for one in waiting.get(op.name, ()))
        ops.append(weaver.rewired(op))
        ops += early.get(op.name, ())
    return graph.with_ops(ops)


class _Weaver:
    """Where the new ops go and what they wait for."""

    def __init__(self, graph: Graph, late: Sequence[Op], again: Mapping[str, str]) -> None:
        self.graph, self.late, self.again = graph, late, again
        self.rank = {graph.ops[i].name: k for k, i in enumerate(graph.order)}
        self.first = self._first_readers()
        self.copy = {op.forward: op.name for op in late if op.kind != "fetch"}
        self.behind = self._behind_waiting_updates()

    def _first_readers(self) -> dict[str, Op]:
        """The op of the graph, by new op, that is the first of those that read it or wait for what reads it."""
        origin = {new: old for old, new in self.again.items()}
        new_readers: dict[str, list[str]] = {}
        for op in self.late:
            for name in op.inputs:
                new_readers.setdefault(name, []).append(op.name)
        first: dict[str, Op] = {}
        for op in reversed(self.late):
            found = [
                r for t in op.outputs if t.name in origin for r in self.graph.readers[origin[t.name]] if is_late(r)
            ]
            found += [first[name] for t in op.outputs for name in new_readers.get(t.name, ())]
            first[op.name] = min(found, key=lambda r: self.rank[r.name])
        return first

    def _behind_waiting_updates(self) -> set[str]:
        """The updates that wait for a copy, and all that comes after them."""
        found: set[str] = set()
        for i in self.graph.order:
            op = self.graph.ops[i]
            makers = (self.graph.producer[name].name for name in op.inputs)
            if self._waits_for_copy(op) or (found and not found.isdisjoint((*op.after, *makers))):
                found.add(op.name)
        return found

    def _waits_for_copy(self, op: Op) -> bool:
        return op.phase == "update" and not self.copy.keys().isdisjoint(op.after)

    def by_reader(self) -> dict[str, list[Op]]:
        """The new ops by the op before which they stand."""
        found: dict[str, list[Op]] = {}
        for op in self.late:
            found.setdefault(self.first[op.name].name, []).append(op)
        return found

    def held_back(self, op: Op) -> Op:
        """A new op with what it waits for."""
        reader = self.first[op.name]
        olds = [old for old, new in self.again.items() if new in {t.name for t in op.outputs}]
        waits = [*self._gradients(reader), *(r for old in olds for r in self.graph.readers[old] if not is_late(r))]
        last = self.rank[reader.name]
        names = dict.fromkeys(w.name for w in waits if self.rank[w.name] < last and w.name not in self.behind)
        return replace(op, after=tuple(names))

    def _gradients(self, reader: Op) -> Iterator[Op]:
        """Backward ops whose results a reader waits for, or, if there are none, the reader of its result."""
        path = [reader.name]
        at: Op | None = reader
        while at is not None:
            makers = [self.graph.producer[name] for name in at.inputs]
            found = [
                m
                for m in makers
                if m.phase == "backward" and m.name not in path and self.rank[m.name] < self.rank[reader.name]
            ]
            if found:
                yield from found
                return
            nexts = [r for t in at.outputs for r in self.graph.readers[t.name]]
            at = min(nexts, key=lambda r: self.rank[r.name], default=None)
            path += [at.name] if at is not None else []

    def rewired(self, op: Op) -> Op:
        """An op of the graph, reading what is made again."""
        if is_late(op):
            inputs = tuple(self.again.get(name, name) for name in op.inputs)
            outputs = tuple(replace(t, alias_of=self.again.get(t.alias_of or "", t.alias_of)) for t in op.outputs)
            return op if (inputs, outputs) == (op.inputs, op.outputs) else replace(op, inputs=inputs, outputs=outputs)
        if self._waits_for_copy(op):
            return replace(op, after=(*op.after, *(self.copy[name] for name in op.after if name in self.copy)))
        return op
