"""What control flow that stays a single op costs: its body, as often as it runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def

from baechi.frontends.tf import costs
from baechi.frontends.tf.flat import Nodes, data, node_of
from baechi.frontends.tf.trips import LOOPS, Trips
from baechi.frontends.tf.values import Value, Values, infer, sizes_of

__all__ = ["BRANCHES", "WRITES", "Bodies", "Cost", "body_names", "is_random"]

BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase")
_LISTS = ("TensorListPushBack", "TensorListSetItem")
WRITES = ("Assign", "ResourceApply", "ResourceSparseApply", "ResourceScatter", "ResourceStridedSliceAssign")
"""How the types of nodes that write a variable begin."""

_FUNCTIONS = ("body", "cond", "then_branch", "else_branch")


class Cost(NamedTuple):
    """FLOPs, bytes moved, bytes of the largest result of a body, and bytes that it puts into lists."""

    flops: float = 0.0
    moved_bytes: int = 0
    temp_bytes: int = 0
    listed_bytes: int = 0
    draws: bool = False


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
        draws = any(c.draws for c in found)
        temp = max((c.temp_bytes for c in found), default=0)
        if node.op in LOOPS:
            flops, moved, listed = (trips * sum(c[i] for c in found) for i in (0, 1, 3))
        else:
            flops, moved, listed = (max((c[i] for c in found), default=0) for i in (0, 1, 3))
        return Cost(float(flops), int(moved), temp, int(listed), draws)

    def writes(self, node: NodeDef) -> bool:
        """Whether a node of control flow writes a variable."""
        functions = {f.signature.name: f for f in self.library.function}
        stack, seen = list(body_names(node)), set()
        while stack:
            name = stack.pop()
            if name not in functions or name in seen:
                continue
            seen.add(name)
            for inner in functions[name].node_def:
                if inner.op.startswith(WRITES):
                    return True
                stack.extend(body_names(inner))
        return False

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
        return _total(self._costs(nodes, values, handles))

    def _costs(
        self, nodes: Nodes, values: Values, handles: Mapping[str, tuple[tf.DType, tf.TensorShape]]
    ) -> Iterator[Cost]:
        for node in nodes.values():
            reads = [
                Value(sizes_of(handles[n][1]), handles[n][0]) if (n := node_of(r)) in handles else values[r]
                for r in data(node)
            ]
            if body_names(node):
                yield self.cost(node, reads, Trips(self.library, nodes).of(node))
                continue
            call = costs.Call(node, reads, values.made[node.name], {})
            temp = sum(v.nbytes for v in call.makes) + costs.temp_bytes(call)
            listed = sum(v.nbytes for v in reads) if node.op in _LISTS else 0
            yield Cost(costs.flops(call), costs.moved_bytes(call), temp, listed, is_random(node.op, values))


def _total(found: Iterator[Cost]) -> Cost:
    """One after the other."""
    total = Cost()
    for c in found:
        total = Cost(
            total.flops + c.flops,
            total.moved_bytes + c.moved_bytes,
            max(total.temp_bytes, c.temp_bytes),
            total.listed_bytes + c.listed_bytes,
            total.draws or c.draws,
        )
    return total


def is_random(kind: str, values: Values) -> bool:
    """Whether a node draws from a state of its own, so that running it twice gives two results."""
    return kind in values.stateful and ("Random" in kind or "Rng" in kind or kind in ("Multinomial", "TruncatedNormal"))
