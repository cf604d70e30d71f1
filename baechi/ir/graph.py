"""The training graph: ops in program order, and the same thing as a networkx graph."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import Any

import networkx

from baechi.errors import BaechiError
from baechi.ir.columns import Columns, columns_of, digest_of
from baechi.ir.op import PHASES, Op, Tensor

__all__ = ["Graph"]


@dataclass(frozen=True, eq=False)
class Graph:
    """A training step as a directed acyclic graph of ops.

    The order of `ops` is the program's own where there is one; every tie in the project ends in
    an op's index in it. It need not be topological.

    Args:
        ops: the operators.
        name: what to call the graph, such as ``inception_v3``.
        meta: what else is known: ``target`` and its options, ``optimizer``, ``batch``.

    Raises:
        BaechiError: B201 to B207, when names repeat, something is missing, a cost is no number,
            or the graph has a cycle.

    Example:
        >>> a = Op("a", "input", outputs=(Tensor("x", 8),))
        >>> g = Graph((a, Op("b", "relu", inputs=("x",), outputs=(Tensor("y", 8),))))
        >>> g.nx.edges["a", "b"]["tensors"]
        ('x',)
    """

    ops: tuple[Op, ...]
    name: str = "graph"
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_names(self)
        _check_numbers(self)
        _check_acyclic(self)

    def __len__(self) -> int:
        return len(self.ops)

    @cached_property
    def index(self) -> dict[str, int]:
        """Where each op is among `ops`, by name."""
        return dict(zip([op.name for op in self.ops], range(len(self.ops)), strict=True))

    @cached_property
    def number(self) -> dict[str, int]:
        """Where each tensor is among those that the ops make one after the other, by name."""
        return dict(zip([t.name for op in self.ops for t in op.outputs], count()))

    @cached_property
    def op(self) -> dict[str, Op]:
        """Ops by name."""
        return dict(zip(self.index, self.ops, strict=True))

    @cached_property
    def tensor(self) -> dict[str, Tensor]:
        """Tensors by name."""
        return {t.name: t for op in self.ops for t in op.outputs}

    @cached_property
    def producer(self) -> dict[str, Op]:
        """The op that makes each tensor, by the tensor's name."""
        return {t.name: op for op in self.ops for t in op.outputs}

    @cached_property
    def readers(self) -> dict[str, tuple[Op, ...]]:
        """The ops that read each tensor, in program order, by the tensor's name."""
        readers: dict[str, list[Op]] = {name: [] for name in self.tensor}
        for op in self.ops:
            for name in op.inputs:
                readers[name].append(op)
        return {name: tuple(ops) for name, ops in readers.items()}

    @cached_property
    def nx(self) -> "networkx.DiGraph[str]":
        """The graph as a frozen `networkx.DiGraph`.

        A node carries its `Op` as ``op``; an edge carries the names of the tensors that flow along
        it as ``tensors``, an empty tuple for a control dependency.
        """
        graph: networkx.DiGraph[str] = networkx.DiGraph(name=self.name, **self.meta)
        graph.add_nodes_from((op.name, {"op": op}) for op in self.ops)
        for op in self.ops:
            for before in op.after:
                graph.add_edge(before, op.name, tensors=())
            for name in op.inputs:
                source = self.producer[name].name
                flows = graph.edges[source, op.name]["tensors"] if graph.has_edge(source, op.name) else ()
                graph.add_edge(source, op.name, tensors=(*flows, name))
        networkx.freeze(graph)
        return graph

    @classmethod
    def from_nx(cls, graph: "networkx.DiGraph[str]") -> "Graph":
        """Read a graph back from its networkx form: nodes carry ``op``; edges follow from it."""
        meta = {k: v for k, v in graph.graph.items() if k not in ("name", "frozen")}
        ops = tuple(data["op"] for _, data in graph.nodes(data=True))
        return cls(ops, str(graph.graph.get("name", "graph")), meta)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Indices of the ops in topological order: program order wherever it is one."""
        return tuple(_topological(self))

    def group_of(self, op: Op) -> str:
        """The colocation group of an op; without one its own name, or where a group is called so, another."""
        if op.group is not None:
            return op.group
        return op.name if op.name not in self._named_groups else f"{op.name} alone"

    @cached_property
    def _named_groups(self) -> frozenset[str]:
        return frozenset(op.group for op in self.ops if op.group is not None)

    @cached_property
    def groups(self) -> dict[str, tuple[Op, ...]]:
        """Ops by colocation group; an op without one is a group of its own, as `group_of` calls it."""
        groups: dict[str, list[Op]] = {}
        for op in self.ops:
            groups.setdefault(self.group_of(op), []).append(op)
        return {name: tuple(ops) for name, ops in groups.items()}

    @cached_property
    def columns(self) -> Columns:
        """Costs, sizes and who reads what, as arrays by index."""
        return columns_of(self.ops, self.index, self.number)

    @cached_property
    def digest(self) -> str:
        """A hash of all that a plan depends on; equal graphs have equal digests in any process."""
        return digest_of(self.ops, list(self.index), list(self.number), self.columns)

    def with_ops(self, ops: Iterable[Op]) -> "Graph":
        """The same graph with other ops."""
        return replace(self, ops=tuple(ops))


def _check_names(graph: Graph) -> None:
    if len(graph.index) != len(graph.ops):
        raise BaechiError("B201", f"two ops are called '{_repeated(o.name for o in graph.ops)}'")
    if len(graph.number) != sum([len(op.outputs) for op in graph.ops]):
        tensors = (t.name for op in graph.ops for t in op.outputs)
        raise BaechiError("B202", f"two tensors are called '{_repeated(tensors)}'")
    try:
        if not graph.columns.repeats_a_read:
            return
    except KeyError:
        pass
    _check_reads(graph)


def _check_reads(graph: Graph) -> None:
    for op in graph.ops:
        for name in op.inputs:
            if name not in graph.tensor:
                raise BaechiError("B203", f"op '{op.name}' reads '{name}', which no op makes")
        if len(set(op.inputs)) != len(op.inputs):
            raise BaechiError("B203", f"op '{op.name}' names an input twice")
        for name in op.after:
            if name not in graph.op:
                raise BaechiError("B204", f"op '{op.name}' comes after '{name}', which is no op")
        for t in op.outputs:
            if t.alias_of is not None and t.alias_of not in graph.tensor:
                raise BaechiError("B205", f"'{t.name}' is a view of '{t.alias_of}', which no op makes")


def _repeated(names: Iterable[str]) -> str:
    seen: set[str] = set()
    return next(n for n in names if n in seen or seen.add(n))  # type: ignore[func-returns-value]


def _check_numbers(graph: Graph) -> None:
    if graph.columns.sound and {op.phase for op in graph.ops} <= set(PHASES):
        return
    for op in graph.ops:
        numbers = {
            "flops": op.flops,
            "moved_bytes": op.moved_bytes,
            "temp_bytes": op.temp_bytes,
            "persistent_bytes": op.persistent_bytes,
            "seconds": op.seconds or 0.0,
            "host_seconds": op.host_seconds or 0.0,
        }
        numbers |= {f"nbytes of '{t.name}'": t.nbytes for t in op.outputs}
        numbers |= {f"seconds of '{t.name}'": t.seconds or 0.0 for t in op.outputs}
        for what, value in numbers.items():
            if not (math.isfinite(value) and value >= 0):
                raise BaechiError(
                    "B206",
                    f"op '{op.name}': {what} is {value}",
                    help="a cost is a finite number of at least 0",
                )
        if op.phase not in PHASES:
            raise BaechiError("B206", f"op '{op.name}': phase is '{op.phase}'", help="one of " + ", ".join(PHASES))


def _topological(graph: Graph) -> Iterable[int]:
    """Depth-first along program order: an op is preceded by what it still waits for, no more."""
    c = graph.columns
    if c.ascending:
        return range(len(graph.ops))
    makers, after = c.maker[c.in_t].tolist(), c.after_op.tolist()
    reads, waits = c.in_ptr.tolist(), c.after_ptr.tolist()
    before = [makers[reads[i] : reads[i + 1]] + after[waits[i] : waits[i + 1]] for i in range(len(graph.ops))]
    state = bytearray(len(graph.ops))  # 0 untouched, 1 on the stack, 2 done
    order: list[int] = []
    for root in range(len(graph.ops)):
        stack = [root]
        while stack:
            i = stack[-1]
            if state[i] == 0:
                state[i] = 1
                for j in reversed(before[i]):
                    if state[j] == 1:
                        raise _cycle(graph)
                    if state[j] == 0:
                        stack.append(j)
            else:
                stack.pop()
                if state[i] == 1:
                    state[i] = 2
                    order.append(i)
    return order


def _check_acyclic(graph: Graph) -> None:
    _ = graph.order


def _cycle(graph: Graph) -> BaechiError:
    edges = networkx.find_cycle(graph.nx)
    path = [str(e[0]) for e in edges]
    shown = path if len(path) <= 6 else [*path[:5], "…", path[-1]]
    return BaechiError(
        "B207",
        "the graph has a cycle: " + " -> ".join([*shown, path[0]]),
        help="a training step is acyclic; unroll loops before you place it",
    )
