"""What control flow that stays a single op costs: its body, as often as it runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def

from baechi.frontends.tf import costs
from baechi.frontends.tf.flat import Nodes, data, node_of
from baechi.frontends.tf.values import Value, Values, infer, sizes_of

__all__ = ["BRANCHES", "LOOPS", "Bodies", "Cost", "body_names"]

LOOPS = ("While", "StatelessWhile")
BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase")
_FUNCTIONS = ("body", "cond", "then_branch", "else_branch")


class Cost(NamedTuple):
    """FLOPs, bytes moved and bytes of the largest result of a body."""

    flops: float
    moved_bytes: int
    temp_bytes: int
    draws: bool


def body_names(node: NodeDef) -> tuple[str, ...]:
    """The functions that a node calls."""
    single = [node.attr[key].func.name for key in _FUNCTIONS if key in node.attr]
    several = [f.name for key in ("branches", "f") if key in node.attr for f in node.attr[key].list.func]
    called = [node.attr["f"].func.name] if "f" in node.attr and node.attr["f"].HasField("func") else []
    return tuple(name for name in (*single, *several, *called) if name)


@dataclass(frozen=True, slots=True)
class Bodies:
    """The functions of a graph, and what a call of them costs.

    Args:
        library: the graph's functions.
    """

    library: Any

    def cost(self, node: NodeDef, reads: Sequence[Value], trips: int) -> Cost:
        """Of a loop its condition and body as often as they run, of a branch the dearer of the two."""
        functions = {f.signature.name: f for f in self.library.function}
        found = [self._of(functions[name], reads, node) for name in body_names(node) if name in functions]
        if not found:
            return Cost(0.0, 0, 0, False)
        temp, draws = max(c.temp_bytes for c in found), any(c.draws for c in found)
        if node.op in LOOPS:
            return Cost(trips * sum(c.flops for c in found), trips * sum(c.moved_bytes for c in found), temp, draws)
        return Cost(max(c.flops for c in found), max(c.moved_bytes for c in found), temp, draws)

    def _of(self, function: Any, reads: Sequence[Value], node: NodeDef) -> Cost:
        given = reads[1:] if node.op in BRANCHES else reads
        shapes = [tf.TensorShape(None if v.shape is None else [n if n >= 0 else None for n in v.shape]) for v in given]
        args = function.signature.input_arg
        graph, _ = function_def_to_graph_def(
            function, [s.as_proto() for s in shapes] if len(shapes) == len(args) else None
        )
        nodes: Nodes = {n.name: n for n in graph.node}
        handles = {
            a.name: (v.dtype, s)
            for a, v, s in zip(args, given, shapes, strict=False)
            if nodes[a.name].attr["dtype"].type == tf.resource.as_datatype_enum and v.dtype != tf.resource
        }
        values = infer(nodes, self.library, handles)
        flops, moved, temp, draws = 0.0, 0, 0, False
        for inner in nodes.values():
            inputs = [values[r] for r in data(inner)]
            held = [Value(sizes_of(handles[n][1]), handles[n][0]) if (n := node_of(r)) in handles else v
                    for r, v in zip(data(inner), inputs, strict=True)]  # fmt: skip
            draws |= is_random(inner.op, values)
            if body_names(inner):
                nested = self.cost(inner, held, trip_count(inner, nodes, {}))
                flops, moved = flops + nested.flops, moved + nested.moved_bytes
                temp, draws = max(temp, nested.temp_bytes), draws | nested.draws
                continue
            call = costs.Call(inner, held, values.made[inner.name], {})
            flops, moved = flops + costs.flops(call), moved + costs.moved_bytes(call)
            temp = max(temp, sum(v.nbytes for v in call.makes) + costs.temp_bytes(call))
        return Cost(flops, moved, temp, draws)


def is_random(kind: str, values: Values) -> bool:
    """Whether a node draws from a state of its own, so that running it twice gives two results."""
    return kind in values.stateful and ("Random" in kind or "Rng" in kind or kind in ("Multinomial", "TruncatedNormal"))


def trip_count(loop: NodeDef, nodes: Nodes, known: Mapping[str, int]) -> int:
    """How often a loop runs: its constant limit, or as often as the loop whose count it goes back; else once.

    Args:
        loop: a node of one of `LOOPS`; any other runs once.
        nodes: the graph that it is in.
        known: counts of the loops before it, by node.
    """
    if loop.op not in LOOPS:
        return 1
    for reference in data(loop)[:4]:
        name = node_of(reference)
        if name in known:
            return known[name]
    limit = nodes.get(node_of(data(loop)[1])) if len(data(loop)) > 1 else None
    number = _constant(limit, nodes)
    return number if number is not None and number > 0 else 1


def _constant(node: NodeDef | None, nodes: Nodes) -> int | None:
    """A limit, as far as it is made of constants: `tf.range` computes it from its own."""
    if node is None:
        return None
    graph = tf.Graph()
    needed = _before(node, nodes)
    if needed is None:
        return None
    graph_def = tf.compat.v1.GraphDef(node=needed)
    graph_def.versions.producer = tf.version.GRAPH_DEF_VERSION
    with graph.as_default():
        tf.graph_util.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            value = session.run(node.name + ":0")
    return int(value) if getattr(value, "ndim", 0) == 0 else None


def _before(node: NodeDef, nodes: Nodes) -> list[NodeDef] | None:
    """A node and all that it is computed from, when those are few and all constants."""
    found: dict[str, NodeDef] = {}
    stack = [node]
    while stack:
        current = stack.pop()
        if current.op in ("Placeholder", "ReadVariableOp", *LOOPS, *BRANCHES) or len(found) > 64:
            return None
        if current.name not in found:
            found[current.name] = current
            stack.extend(nodes[node_of(r)] for r in data(current))
    return [n for n in found.values()]
