"""One flat graph: calls of functions replaced by their bodies, and joins that join nothing split."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def

__all__ = ["Flat", "Nodes", "control", "data", "inline", "node_of", "prune", "resolve", "rewire", "split_joins"]

Nodes = dict[str, NodeDef]
"""Nodes by name, in program order."""

CALLS = ("PartitionedCall", "StatefulPartitionedCall")


@dataclass(slots=True)
class Flat:
    """A graph without calls.

    Args:
        nodes: by name.
        renamed: by result of a call, as ``node:index``, the tensor that it is.
        ends: by call, what has to have run when it has ended.
        returned: the copies that end the functions that were inlined.
    """

    nodes: Nodes
    renamed: dict[str, str] = field(default_factory=dict)
    ends: dict[str, tuple[str, ...]] = field(default_factory=dict)
    returned: list[str] = field(default_factory=list)

    def ending(self, name: str) -> Iterator[str]:
        """The nodes that have run when a node or a call has."""
        if name not in self.ends:
            yield name
            return
        for end in self.ends[name]:
            yield from self.ending(end)


def node_of(reference: str) -> str:
    """The node that an input names: ``a`` of ``a``, ``a:1`` and ``^a``."""
    return reference.removeprefix("^").partition(":")[0]


def data(node: NodeDef) -> list[str]:
    """A node's tensor inputs, as ``node:index``."""
    return [r if ":" in r else r + ":0" for r in node.input if not r.startswith("^")]


def control(node: NodeDef) -> list[str]:
    """The nodes that a node waits for although no tensor flows."""
    return [r[1:] for r in node.input if r.startswith("^")]


def rewire(node: NodeDef, inputs: Sequence[str], waits: Iterable[str]) -> None:
    """Give a node other inputs: tensors as ``node:index``, then nodes to wait for."""
    node.ClearField("input")
    node.input.extend(r.removesuffix(":0") for r in inputs)
    node.input.extend("^" + name for name in dict.fromkeys(waits))


def inline(graph_def: GraphDef) -> Flat:
    """Replace each call of a function by the function's nodes, named after the call.

    What waited for the call waits for all that has an effect in the body, and where nothing has one, for its results.
    """
    library = {f.signature.name: f for f in graph_def.library.function}
    flat = Flat({n.name: n for n in graph_def.node})
    while calls := [n for n in flat.nodes.values() if n.op in CALLS or n.op in library]:
        expanded = {call.name: list(_body(call, library, flat)) for call in calls}
        flat.nodes = {m.name: m for n in flat.nodes.values() for m in expanded.get(n.name, (n,))}
    if flat.ends:
        for node in flat.nodes.values():
            waits = [end for name in control(node) for end in flat.ending(name)]
            rewire(node, [resolve(r, flat.renamed) for r in data(node)], waits)
    return flat


def resolve(reference: str, renamed: Mapping[str, str]) -> str:
    """The tensor that a reference stands for in the end."""
    while reference in renamed:
        reference = renamed[reference]
    return reference


def _body(call: NodeDef, library: Mapping[str, Any], flat: Flat) -> Iterator[NodeDef]:
    function = library[call.attr["f"].func.name if call.op in CALLS else call.op]
    body, named = function_def_to_graph_def(function, [None] * len(function.signature.input_arg))
    prefix = call.name + "/"
    given = dict(zip((a.name for a in function.signature.input_arg), data(call), strict=True))
    waits = control(call)

    def outer(reference: str) -> str:
        name, _, index = reference.partition(":")
        return str(given.get(name, f"{prefix}{name}:{index or 0}"))

    results = [outer(named[function.ret[argument.name]]) for argument in function.signature.output_arg]
    flat.renamed |= {f"{call.name}:{i}": tensor for i, tensor in enumerate(results)}
    effects = tuple(prefix + name for name in function.control_ret.values())
    flat.ends[call.name] = effects or tuple(dict.fromkeys(map(node_of, results))) or tuple(waits)
    last = {node_of(r) for r in results}
    for node in body.node:
        if node.name in given:
            continue
        if node.op == "Identity" and prefix + node.name in last:
            flat.returned.append(prefix + node.name)
        inner = [prefix + name for name in control(node) if name not in given]
        inputs = [outer(r) for r in data(node)]
        node.name = prefix + node.name
        rewire(node, inputs, [*inner, *([] if inner else waits)])
        yield node


def split_joins(nodes: Nodes) -> dict[str, str]:
    """Replace each `IdentityN` by one `Identity` per tensor: Keras leads all gradients through one of them.

    Returns:
        By result of a split join, as ``node:index``, the tensor that it is now.
    """
    renamed: dict[str, str] = {}
    parts: dict[str, tuple[str, ...]] = {}
    for node in [n for n in nodes.values() if n.op == "IdentityN"]:
        made = list(_parts(node, nodes))
        parts[node.name] = tuple(m.name for m in made)
        renamed |= {f"{node.name}:{i}": m.name + ":0" for i, m in enumerate(made)}
    if parts:
        split = {n: nodes.pop(n) for n in parts}
        for node in nodes.values():
            waits = [part for name in control(node) for part in parts.get(name, (name,))]
            rewire(node, [renamed.get(r, r) for r in data(node)], waits)
        del split
    return renamed


def _parts(join: NodeDef, nodes: Nodes) -> Iterator[NodeDef]:
    """Stored beside the join, so that program order stays topological enough to read."""
    for i, (reference, kind) in enumerate(zip(data(join), join.attr["T"].list.type, strict=True)):
        name = f"{join.name}/{i}"
        while name in nodes:
            name += "_"
        part = NodeDef(name=name, op="Identity")
        part.attr["T"].CopyFrom(AttrValue(type=kind))
        rewire(part, [reference], control(join))
        nodes[name] = part
        yield part


def prune(nodes: Nodes, wanted: Iterable[str]) -> Nodes:
    """The nodes that those `wanted`, nodes or tensors, need, in their order."""
    needed: set[str] = set()
    stack = [node_of(r) for r in wanted]
    while stack:
        name = stack.pop()
        if name not in needed:
            needed.add(name)
            stack.extend(node_of(r) for r in nodes[name].input)
    return {name: node for name, node in nodes.items() if name in needed}
