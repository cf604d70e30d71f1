"""Which part of a training step each node is: forward, backward or update; and which forward node it belongs to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from baechi.frontends.tf.flat import Nodes, data, node_of
from baechi.ir.op import Phase

__all__ = ["Roles", "roles_of"]

_TAPE = "gradient_tape/"
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
    tape = {name for name in order if _is_backward(name)}
    if not tape:
        return Roles(dict.fromkeys(order, "forward"), {})
    sources = {name: [node_of(r) for r in data(nodes[name])] for name in order}
    after_tape = _closed(order, tape, sources)
    leads = _leads(order, tape, sources)
    backward = {n for n in order if n in tape or (n in after_tape and (n in leads or _is_sum(n, nodes, tape, sources)))}
    needed = _needed([*tape, *map(node_of, results)], sources)
    forward = _forward_writes(order, needed, after_tape, resources, sources)
    phase: dict[str, Phase] = {}
    for name in order:
        if name in backward:
            phase[name] = "backward"
        elif name in after_tape or name not in forward:
            phase[name] = "update"
        else:
            phase[name] = "forward"
    return Roles(phase, _twins(order, phase, sources))


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


def _leads(order: list[str], tape: set[str], sources: Mapping[str, list[str]]) -> set[str]:
    """What a node of the tape depends on."""
    return _needed(tape, sources) - tape


def _needed(wanted: Iterable[str], sources: Mapping[str, list[str]]) -> set[str]:
    found: set[str] = set()
    stack = list(wanted)
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            stack.extend(sources[name])
    return found


def _forward_writes(
    order: list[str],
    needed: set[str],
    after_tape: set[str],
    resources: Mapping[str, tuple[str, ...]],
    sources: Mapping[str, list[str]],
) -> set[str]:
    """What gradients and results need, and writes (with all they need) of variables that no update reads alone."""
    read_forward = {v for n in order if n in needed and n not in after_tape for v in resources.get(n, ())}
    read_update = {v for n in order if n in after_tape for s in sources[n] for v in resources.get(s, ())}
    early = [
        n
        for n in order
        if n not in after_tape
        and any(v in read_forward or v not in read_update for v in resources.get(n, ()))
        and n not in needed
    ]
    return needed | _needed(early, sources)


def _twins(order: list[str], phase: Mapping[str, Phase], sources: Mapping[str, list[str]]) -> dict[str, str]:
    """By scope; what the scope leaves open inherits from the gradients that it reads, then from a reader."""
    place = {name: i for i, name in enumerate(order)}
    scopes: dict[str, str] = {}
    for name in order:
        if phase[name] == "forward":
            parts = name.split("/")
            for i in range(1, len(parts)):
                scopes.setdefault("/".join(parts[:i]), name)
    backward = [n for n in order if phase[n] == "backward"]
    twin = {n: found for n in backward if (found := _by_scope(n, phase, scopes)) is not None}
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
            heirs += [s for s in sources[name] if phase.get(s) == "forward"]
            if heirs:
                twin[name] = heirs[0]
    return twin


def _by_scope(name: str, phase: Mapping[str, Phase], scopes: Mapping[str, str]) -> str | None:
    """``gradient_tape/a/b/MatMul_1`` belongs to node ``a/b`` or, when that is a scope, to the first node in it."""
    if _TAPE not in name:
        return None
    before, _, rest = name.partition(_TAPE)
    parts = (before + rest).split("/")
    paths = ["/".join(parts[:i]) for i in range(len(parts) - 1, 0, -1)]
    exact = next((p for p in paths if phase.get(p) == "forward"), None)
    return exact if exact is not None else next((scopes[p] for p in paths[:1] if p in scopes), None)
