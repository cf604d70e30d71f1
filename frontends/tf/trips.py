"""How often a loop runs, where that does not depend on the data."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def

from baechi.frontends.tf.flat import Nodes, data, node_of, rewire

__all__ = ["LOOPS", "Trips"]

LOOPS = ("While", "StatelessWhile")
_MOST = 100_000
_OTHER = ("Placeholder", "ReadVariableOp", "If", "StatelessIf", "Case", "StatelessCase")


@dataclass(frozen=True, slots=True)
class Trips:
    """Counts the turns of loops.

    Args:
        library: functions of the graph.
        nodes: the graph that the loops are in.
        found: by loop, what was counted, from the first loop on: the loop of a gradient runs as often as
            that of the forward pass says.
    """

    library: Any
    nodes: Nodes
    found: dict[str, int] = field(default_factory=dict)

    def of(self, loop: NodeDef) -> int:
        """Turns of a loop: its counters alone are run; 1 when they depend on data, and for what is no loop."""
        if loop.op not in LOOPS:
            return 1
        self.found[loop.name] = turns = self._count(loop)
        return turns

    def _count(self, loop: NodeDef) -> int:
        functions = {f.signature.name: f for f in self.library.function}
        condition = _Function.of(functions[loop.attr["cond"].func.name])
        body = _Function.of(functions[loop.attr["body"].func.name])
        counters = _closed(condition, body)
        if counters is None:
            return 1
        start = {i: self._value(data(loop)[i]) for i in counters}
        if any(value is None for value in start.values()):
            return 1
        return _run(condition, body, start)

    def _value(self, reference: str) -> Any:
        """A number before the loop: made of constants, or a count of turns that is known."""
        if node_of(reference) in self.found:
            return self.found[node_of(reference)] if reference.endswith(":0") else None
        needed: dict[str, NodeDef] = {}
        stack = [node_of(reference)]
        while stack:
            node = self.nodes[stack.pop()]
            if node.op in (*_OTHER, *LOOPS) or len(needed) > 64:
                return None
            if node.name not in needed:
                needed[node.name] = node
                stack.extend(map(node_of, data(node)))
        return _evaluate(needed.values(), [reference])[0]


@dataclass(frozen=True, slots=True)
class _Function:
    """A function's arguments, nodes and results."""

    arguments: tuple[str, ...]
    nodes: Nodes
    results: tuple[str, ...]

    @classmethod
    def of(cls, function: Any) -> "_Function":
        arguments = tuple(a.name for a in function.signature.input_arg)
        graph, named = function_def_to_graph_def(function, [None] * len(arguments))
        results = tuple(named[function.ret[a.name]] for a in function.signature.output_arg)
        return cls(arguments, {n.name: n for n in graph.node}, results)

    def reads(self, result: int) -> tuple[dict[str, NodeDef], set[int]] | None:
        """The nodes that make a result, and the arguments that they need; None when that is too much to run."""
        needed: dict[str, NodeDef] = {}
        stack = [node_of(self.results[result])]
        while stack:
            node = self.nodes[stack.pop()]
            if node.name in needed:
                continue
            if (node.name not in self.arguments and node.op in (*_OTHER, *LOOPS)) or len(needed) > 64:
                return None
            needed[node.name] = node
            stack.extend(map(node_of, data(node)))
        return needed, {self.arguments.index(n) for n in needed if n in self.arguments}


def _closed(condition: _Function, body: _Function) -> list[int] | None:
    """The loop variables that decide when the loop ends, with those that decide these."""
    read = condition.reads(0)
    if read is None:
        return None
    found: set[int] = set()
    stack = sorted(read[1])
    while stack:
        i = stack.pop()
        if i in found:
            continue
        found.add(i)
        more = body.reads(i)
        if more is None:
            return None
        stack.extend(more[1])
    return sorted(found)


def _run(condition: _Function, body: _Function, start: dict[int, Any]) -> int:
    """Run the counters until the condition fails."""
    again, state = _runner(condition, [0], list(start)), _runner(body, list(start), list(start))
    values: Sequence[Any] = [start[i] for i in start]
    turns = 0
    while turns < _MOST and bool(again(values)[0]):
        values = state(values)
        turns += 1
    return max(turns, 1)


def _runner(function: _Function, results: list[int], arguments: list[int]) -> Any:
    needed: dict[str, NodeDef] = {}
    for result in results:
        found = function.reads(result)
        needed |= found[0] if found is not None else {}
    for i in arguments:
        needed.setdefault(function.arguments[i], function.nodes[function.arguments[i]])
    graph = _imported(needed.values())
    session = tf.compat.v1.Session(graph=graph)
    feeds = [function.arguments[i] + ":0" for i in arguments]
    fetches = [_named(function.results[r]) for r in results]
    return lambda values: session.run(fetches, dict(zip(feeds, values, strict=True)))


def _evaluate(nodes: Iterable[NodeDef], references: list[str]) -> Any:
    with tf.compat.v1.Session(graph=_imported(nodes)) as session:
        return session.run([_named(r) for r in references])


def _named(reference: str) -> str:
    return reference if ":" in reference else reference + ":0"


def _imported(nodes: Iterable[NodeDef]) -> tf.Graph:
    graph_def = GraphDef(node=nodes)
    for node in graph_def.node:
        rewire(node, data(node), ())
    graph_def.versions.producer = tf.version.GRAPH_DEF_VERSION
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(graph_def, name="")
    return graph
