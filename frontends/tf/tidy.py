"""The flat graph as it will be run: no copies that copy nothing, nothing computed twice, constants beside their readers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tensorflow.core.framework.node_def_pb2 import NodeDef

from baechi.frontends.tf.flat import Nodes, control, data, node_of, resolve, rewire
from baechi.frontends.tf.values import Value, Values

__all__ = ["SMALL_BYTES", "Tidied", "bypass", "merge", "ordered", "scatter_constants"]

SMALL_BYTES = 1024
"""Up to this size a constant is copied to each reader, and a value computed once instead of twice."""

_NAMES = ("_user_specified_name", "_class", "_output_shapes", "container", "shared_name")


@dataclass(frozen=True, slots=True)
class Tidied:
    """Nodes, and by tensor that is gone, as ``node:index``, the one that takes its place."""

    nodes: Nodes
    renamed: dict[str, str]


def bypass(nodes: Nodes, returned: Iterable[str]) -> Tidied:
    """Lead the readers of each `Identity` to what it copies.

    TensorFlow ends each function in copies of its results, which wait for all that has an effect in it;
    those wait no more. Any other `Identity` that waits for something stays.

    Args:
        nodes: the flat graph.
        returned: the copies that end a function.
    """
    ends = set(returned)
    for name in ends:
        rewire(nodes[name], data(nodes[name]), ())
    gone = {name: data(node)[0] for name, node in nodes.items() if node.op == "Identity" and not control(node)}
    renamed = {f"{name}:0": source for name, source in gone.items()}
    waits = {name: node_of(resolve(source, renamed)) for name, source in gone.items()}
    kept = {name: node for name, node in nodes.items() if name not in gone}
    for node in kept.values():
        rewire(node, [resolve(r, renamed) for r in data(node)], [waits.get(c, c) for c in control(node)])
    return Tidied(kept, renamed)


def merge(nodes: Nodes, values: Values) -> Tidied:
    """Compute once what is computed alike twice: small values without effects, and reads of a variable.

    Two reads that wait for the same writes see the same value. A large value is left: to keep it
    would cost memory.
    """
    found: dict[tuple[object, ...], str] = {}
    gone: dict[str, str] = {}
    for name in ordered(nodes):
        node = nodes[name]
        if any(node_of(r) in gone for r in node.input):
            inputs = [f"{gone[node_of(r)]}:{r.partition(':')[2]}" if node_of(r) in gone else r for r in data(node)]
            rewire(node, inputs, [gone.get(c, c) for c in control(node)])
        if not _mergeable(node, values):
            continue
        key = (node.op, tuple(data(node)), tuple(sorted(control(node))), _attributes(node))
        if found.setdefault(key, name) != name:
            gone[name] = found[key]
    renamed = {f"{name}:{i}": f"{to}:{i}" for name, to in gone.items() for i in range(len(values.made[name]))}
    return Tidied({n: node for n, node in nodes.items() if n not in gone}, renamed)


def _mergeable(node: NodeDef, values: Values) -> bool:
    if node.op == "ReadVariableOp":
        return True
    made = values.made[node.name]
    pure = node.op not in values.stateful and node.op not in ("Placeholder", "NoOp")
    return pure and bool(made) and all(v.known and v.nbytes <= SMALL_BYTES and _plain(v) for v in made)


def _plain(value: Value) -> bool:
    return value.dtype.is_numpy_compatible and not value.dtype.base_dtype.is_quantized and value.dtype.name != "variant"


def _attributes(node: NodeDef) -> bytes:
    return b"\0".join(
        key.encode() + b"=" + node.attr[key].SerializeToString(deterministic=True)
        for key in sorted(node.attr)
        if key not in _NAMES
    )


def ordered(nodes: Nodes) -> Iterator[str]:
    """Names in topological order, that of the program wherever it is one."""
    done: set[str] = set()
    for root in nodes:
        stack = [(root, False)]
        while stack:
            name, ready = stack.pop()
            if name in done:
                continue
            if ready:
                done.add(name)
                yield name
                continue
            stack.append((name, True))
            stack.extend((node_of(r), False) for r in reversed(nodes[name].input) if node_of(r) not in done)


def scatter_constants(nodes: Nodes, values: Values, results: Sequence[str]) -> tuple[Nodes, dict[str, tuple[str, ...]]]:
    """Give each reader of a small constant one of its own, so that it is where its reader is.

    A constant waits for nothing, so nothing has to wait for it.

    Args:
        nodes: the graph.
        values: what it computes; the copies are added.
        results: tensors that the step returns.

    Returns:
        The nodes, and by reader its constants.
    """
    constants = {name for name, node in nodes.items() if node.op == "Const"}
    for node in nodes.values():
        if node.name in constants:
            rewire(node, (), ())
        elif any(c in constants for c in control(node)):
            rewire(node, data(node), [c for c in control(node) if c not in constants])
    small = {name for name in constants if values.made[name][0].nbytes <= SMALL_BYTES}
    kept = {node_of(r) for r in results}
    used = {name for name in small if name in kept}
    copied: Nodes = {}
    owned: dict[str, tuple[str, ...]] = {}
    for name, node in nodes.items():
        if name in small:
            continue
        mine: dict[str, str] = {}
        for reference in data(node):
            source = node_of(reference)
            if source in small and source not in mine:
                mine[source] = (
                    source if source not in used else _fresh(f"{name}/{source.rpartition('/')[2]}", nodes, copied)
                )
                used.add(source)
                copied[mine[source]] = _copy(nodes[source], mine[source])
                values.made[mine[source]] = values.made[source]
        if mine:
            rewire(node, [_moved(r, mine) for r in data(node)], control(node))
            owned[name] = tuple(mine.values())
        copied[name] = node
    for name, node in nodes.items():
        if name in small and name in kept:
            copied[name] = node
    return copied, owned


def _moved(reference: str, mine: Mapping[str, str]) -> str:
    source = node_of(reference)
    return f"{mine[source]}:0" if source in mine else reference


def _fresh(name: str, *taken: Mapping[str, object]) -> str:
    while any(name in names for names in taken):
        name += "_"
    return name


def _copy(node: NodeDef, name: str) -> NodeDef:
    copy = NodeDef()
    copy.CopyFrom(node)
    copy.name = name
    return copy
