"""Which part of a training step each node is: forward, backward or update; and which forward node it belongs to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tensorflow.core.framework.node_def_pb2 import NodeDef

from baechi.frontends.tf.flat import Nodes, control, data, node_of
from baechi.ir.op import Phase

__all__ = ["Roles", "roles_of"]

_TAPE = "gradient_tape/"
_EMPTY = (
    "Const",
    "EmptyTensorList",
    "TensorListReserve",
)  # the tape makes lists for a loop of the forward pass to fill
_GIVEN = ("Const", "Placeholder", "ReadVariableOp")
_SCOPES = (_TAPE, "gradients/")


@dataclass(frozen=True, slots=True)
class Roles:
    """What each node is for.

    Args:
        phase: by node.
        twin: by backward node, the forward node whose gradient it helps to compute.
    """

    phase: dict[str, Phase]
    twin: dict[str, str]


def roles_of(nodes: Nodes, resources: Mapping[str, tuple[str, ...]], results: Iterable[str]) -> Roles:
    """Tell the phases apart by TensorFlow's own scopes for gradients and by who depends on whom.

    Backward is what the tape made and what lies between two such nodes. Update is what reads gradients
    and leads to no further gradient, and what only updates need: learning rates, counts of steps, their writes.

    Args:
        nodes: the flat graph, in topological order.
        resources: by node, the variables that it touches, as placeholders.
        results: tensors that the step returns.
    """
    order = list(nodes)
    tape = {name for name, node in nodes.items() if _is_backward(name) and node.op not in _EMPTY}
    if not tape:
        return Roles(dict.fromkeys(order, "forward"), {})
    sources = {name: [node_of(r) for r in data(nodes[name])] for name in order}
    through_state = {n: sources[n] + _writers(n, nodes, resources) for n in order}
    of_gradients, after_updates = _closed(order, tape, sources), _closed(order, tape, through_state)
    leads = _needed(tape, sources) - tape
    sums = {n for n in of_gradients if _is_sum(n, nodes, tape, sources)}
    backward = tape | sums | (of_gradients & leads)
    update = after_updates - backward - leads
    forward = _forward(order, _needed([*tape, *map(node_of, results)], sources), update, resources, sources)
    phase: dict[str, Phase] = {}
    for name in order:
        if name in backward:
            phase[name] = "backward"
        else:
            phase[name] = "forward" if name in forward and name not in update else "update"
    return Roles(phase, _twins(nodes, phase, sources))


def _is_backward(name: str) -> bool:
    return name.startswith(_SCOPES) or "/" + _TAPE in name


def _is_sum(name: str, nodes: Nodes, tape: set[str], sources: Mapping[str, list[str]]) -> bool:
    """The tape adds up the gradients of what is read twice, outside of its own scope."""
    return nodes[name].op == "AddN" and all(s in tape for s in sources[name])


def _closed(order: Iterable[str], seeds: set[str], sources: Mapping[str, list[str]]) -> set[str]:
    """The seeds and all that depends on them."""
    found = set(seeds)
    for name in order:
        if any(s in found for s in sources[name]):
            found.add(name)
    return found


def _writers(name: str, nodes: Nodes, resources: Mapping[str, tuple[str, ...]]) -> list[str]:
    """What wrote a variable before a node that touches it."""
    mine = resources.get(name, ())
    return [c for c in control(nodes[name]) if any(v in mine for v in resources.get(c, ()))] if mine else []


def _needed(wanted: Iterable[str], sources: Mapping[str, list[str]]) -> set[str]:
    found: set[str] = set()
    stack = list(wanted)
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            stack.extend(sources[name])
    return found


def _forward(
    order: list[str],
    needed: set[str],
    update: set[str],
    resources: Mapping[str, tuple[str, ...]],
    sources: Mapping[str, list[str]],
) -> set[str]:
    """What gradients and results need, and (with all it needs) what touches a variable that not only updates read."""
    read_forward = {v for n in order if n in needed and n not in update for v in resources.get(n, ())}
    for_updates = _needed(update, sources) - needed
    read_update = {v for n in order if n in for_updates for v in resources.get(n, ())}
    early = [
        n
        for n in order
        if n not in update and any(v in read_forward or v not in read_update for v in resources.get(n, ()))
    ]
    return needed | _needed(early, sources)


def _twins(nodes: Nodes, phase: Mapping[str, Phase], sources: Mapping[str, list[str]]) -> dict[str, str]:
    """By scope; what the scope leaves open inherits from the gradients that it reads, then from a reader."""
    place = {name: i for i, name in enumerate(nodes)}
    scopes: dict[str, list[str]] = {}
    for name, node in nodes.items():
        if phase[name] == "forward" and node.op not in _GIVEN:
            scopes.setdefault(name.rpartition("/")[0], []).append(name)
    backward = [n for n in nodes if phase[n] == "backward"]
    twin = {n: found for n in backward if (found := _by_scope(nodes[n], nodes, phase, scopes)) is not None}
    readers: dict[str, list[str]] = {}
    for name in backward:
        for source in sources[name]:
            readers.setdefault(source, []).append(name)
        if name not in twin:
            known = [twin[s] for s in sources[name] if s in twin]
            if known:
                twin[name] = min(known, key=place.__getitem__)
    for name in reversed(backward):
        if name not in twin:
            heirs = [twin[r] for r in readers.get(name, ()) if r in twin]
            heirs += [s for s in sources[name] if phase[s] == "forward" and nodes[s].op not in _GIVEN]
            if heirs:
                twin[name] = heirs[0]
    return twin


def _by_scope(node: NodeDef, nodes: Nodes, phase: Mapping[str, Phase], scopes: Mapping[str, list[str]]) -> str | None:
    """``gradient_tape/a/b/MatMul_1`` belongs to node ``a/b`` or, when that is a scope, to a node in it.

    In a scope ``ReluGrad`` belongs to the ``Relu``, another node to the first.
    """
    if _TAPE not in node.name:
        return None
    parts = node.name.replace(_TAPE, "", 1).split("/")
    paths = ["/".join(parts[:i]) for i in range(len(parts) - 1, 0, -1)]
    for path in paths:
        if phase.get(path) == "forward" and nodes[path].op not in _GIVEN:
            return path
    inside = scopes.get(paths[0], []) if paths else []
    same = [n for n in inside if node.op.startswith(nodes[n].op)]
    return next(iter((*same, *inside)), None)
