"""From a traced step to the IR: one op a call, a tensor a result, and who shares memory with whom."""

import operator
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor as TorchTensor
from torch import fx

from baechi.errors import BaechiError
from baechi.frontends.pytorch import costs
from baechi.frontends.pytorch.joint import UNMARKED, Joint, Mark
from baechi.frontends.pytorch.optimizers import state_bytes
from baechi.frontends.pytorch.program import OptimizerSpec
from baechi.frontends.pytorch.provenance import origin
from baechi.frontends.pytorch.temporaries import temp_bytes
from baechi.frontends.pytorch.writes import Built, add_writes
from baechi.ir.op import Op, Phase, Tensor

__all__ = ["build", "draws"]

_FREE: Mapping[str, Any] = {"flops": 0.0, "moved_bytes": 0}
"""What a view costs."""


def build(joint: Joint, optimizer: OptimizerSpec | None, *, keep_gradients: bool) -> Built:
    """Build the ops of a step.

    Args:
        joint: the traced step, tidied.
        optimizer: what updates the parameters, if anything does.
        keep_gradients: gradients live from step to step (``zero_grad(set_to_none=False)``): they
            are charged to the parameters' `persistent_bytes`, and held there.
    """
    built = Built()
    for name, gradient in joint.gradients.items():
        _check_dense(gradient.meta["val"], f"the gradient of '{name}'")
    backward = _close_backward(joint)
    for node in joint.module.graph.nodes:
        match node.op:
            case "placeholder":
                _add_placeholder(built, node, joint, optimizer)
            case "get_attr":
                _add_constant(built, joint.module, node)
            case "call_function" if node.target is not operator.getitem:
                _add_call(built, node, "backward" if node in backward else "forward", joint.marks.get(node, UNMARKED))
    _link(built, joint, backward)
    add_writes(built, joint, optimizer, keep_gradients=keep_gradients)
    return built


def _close_backward(joint: Joint) -> frozenset[fx.Node]:
    """The backward nodes, with every node that reads a tangent or a backward node's result."""
    found = set(joint.backward) | {n for n, role in joint.roles.items() if role.kind == "tangent"}
    for node in joint.module.graph.nodes:
        if node.op == "call_function" and any(n in found for n in node.all_input_nodes):
            found.add(node)
    return frozenset(found)


def _add_placeholder(built: Built, node: fx.Node, joint: Joint, optimizer: OptimizerSpec | None) -> None:
    name, value, role = node.name, node.meta["val"], joint.roles[node]
    nbytes = costs.dense_bytes(value)
    persistent, group, phase = nbytes, joint.marks.get(node, UNMARKED).group, "forward"
    match role.kind:
        case "parameter":
            group = f"p:{role.name}"
            update = optimizer.for_parameter(role.name) if optimizer is not None else None
            if update is not None and role.name in joint.gradients:
                persistent += state_bytes(update, value)
        case "buffer":
            group = f"b:{role.name}"
        case "tangent":
            phase = "backward"
    _add_source(built, node, role.kind, persistent, group, phase)
    built.by_role[role] = name


def _add_constant(built: Built, module: fx.GraphModule, node: fx.Node) -> None:
    value: Any = module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    if not isinstance(value, TorchTensor):
        return
    node.meta.setdefault("val", value)
    _add_source(built, node, "constant", costs.dense_bytes(value), None, "forward")
    built.constants[node.name] = value


def _add_source(built: Built, node: fx.Node, kind: str, persistent: int, group: str | None, phase: Any) -> None:
    """An op without inputs, whose tensor is there before the step begins."""
    value, name = node.meta["val"], node.name
    tensor = replace(_tensor(name, value, None), held=costs.dense_bytes(value))
    key = f"{kind}({costs.tensor_key(value)})"
    dtype = str(value.dtype).removeprefix("torch.")
    built.ops[name] = Op(
        name, kind, (), (tensor,), phase=phase, persistent_bytes=persistent, arithmetic=dtype, group=group, key=key
    )
    built.nodes[name] = ()
    built.values[name] = node
    built.results[node] = (name,)
    built.made_by[name] = built.root[name] = name
    built.storage[None, _storage(value)] = name


def _tensor(name: str, value: TorchTensor, alias_of: str | None) -> Tensor:
    dtype = str(value.dtype).removeprefix("torch.")
    shape, scattered = tuple(map(int, value.shape)), costs.is_scattered(value)
    return Tensor(name, costs.dense_bytes(value), shape, dtype, alias_of, scattered=scattered)


def _storage(value: TorchTensor) -> int:
    return int(value.untyped_storage()._cdata)


def _add_call(built: Built, node: fx.Node, phase: Phase, mark: Mark) -> None:
    inputs = tuple(dict.fromkeys(name for n in node.all_input_nodes for name in built.results.get(n, ())))
    mine = {built.root[name] for name in inputs}
    outputs: list[Tensor] = []
    items: list[fx.Node] = []
    for name, value, holder in _results(node, node.meta.get("val"), node.name, items):
        _check_dense(value, f"the result of {node.target} in '{origin(node)[0]}'")
        base = _base(built, value, mark)
        # A storage known from elsewhere counts only when this call could have reached it.
        alias = base if base in mine else None
        outputs.append(_tensor(name, value, alias))
        built.root[name] = alias or name
        if alias is None or mark.shares is not None:
            built.storage[mark.copy, _storage(value)] = alias or name
            mine.add(alias or name)
        built.made_by[name] = node.name
        if holder is not None:
            built.values[name] = holder
            built.results[holder] = (name,)
    built.results.setdefault(node, tuple(t.name for t in outputs))
    view = bool(outputs) and all(t.alias_of is not None for t in outputs) and not costs.writes(node)
    module, source = origin(node)
    traced = mark.like or node
    if traced not in built.costs:
        built.costs[traced] = _costs(traced)
    built.ops[node.name] = Op(
        node.name,
        str(getattr(node.target, "overloadpacket", node.target)),
        inputs,
        tuple(outputs),
        after=_random_turn(built, node),
        phase=phase,
        module=module,
        source=source,
        group=mark.group,
        copy=mark.copy,
        **{**built.costs[traced], **(_FREE if view else {})},
        draws=draws(node),
    )
    built.nodes[node.name] = (node, *items)


def _costs(node: fx.Node) -> Mapping[str, Any]:
    return {
        "flops": costs.flops(node),
        "moved_bytes": costs.moved_bytes(node),
        "temp_bytes": temp_bytes(node),
        "arithmetic": costs.arithmetic(node),
        "key": costs.call_key(node),
    }


def _base(built: Built, value: TorchTensor, mark: Mark) -> str | None:
    """The tensor whose storage a result is in, as far as that is known."""
    if mark.shares is not None:
        return built.root[built.results[mark.shares][0]]
    place = _storage(value)
    return built.storage.get((mark.copy, place)) or built.storage.get((None, place))


def _check_dense(value: TorchTensor, what: str) -> None:
    if value.layout != torch.strided:
        raise BaechiError(
            "B707",
            f"{what} is sparse, and only dense tensors are placed",
            help="build the embedding with sparse=False, or call to_dense()",
        )


def _results(
    node: fx.Node, value: Any, name: str, items: list[fx.Node]
) -> Iterator[tuple[str, TorchTensor, fx.Node | None]]:
    """The tensors of a result: name, value and the node that holds it; `items` collects getitems."""
    if isinstance(value, TorchTensor):
        yield name, value, node
        return
    if not isinstance(value, list | tuple):
        return
    getters = {u.args[1]: u for u in node.users if u.target is operator.getitem and u.args[0] is node}
    for i, part in enumerate(value):
        getter = getters.get(i)
        if getter is not None:
            items.append(getter)
            yield from _results(getter, part, getter.name, items)
        else:
            yield from ((f"{name}.{i}{rest}", t, None) for rest, t in _unused(part))


def _unused(value: Any) -> Iterator[tuple[str, TorchTensor]]:
    if isinstance(value, TorchTensor):
        yield "", value
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from ((f".{i}{rest}", t) for rest, t in _unused(part))


def _random_turn(built: Built, node: fx.Node) -> tuple[str, ...]:
    """Random ops draw from one stream: each waits for the one before it, as in eager code."""
    if not draws(node):
        return ()
    before, built.last_random = built.last_random, node.name
    return () if before is None else (before,)


def draws(node: fx.Node) -> bool:
    """Whether a call takes random numbers: attention with dropout 0 does not."""
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    schema = getattr(node.target, "_schema", None)
    for i, argument in enumerate(schema.arguments if schema is not None else ()):
        if argument.name == "dropout_p":
            given = node.args[i] if i < len(node.args) else node.kwargs.get("dropout_p", argument.default_value)
            return bool(given != 0)
    return True


def _link(built: Built, joint: Joint, backward: frozenset[fx.Node]) -> None:
    """Give each backward op its forward twin, module and source line.

    What the trace leaves open inherits from the producers in the backward pass, then from a reader,
    then from a forward op that it reads. Of several producers, as of a sum of gradients, the one whose
    twin comes first in the forward pass counts: there the gradient goes on.
    """
    twin: dict[str, str] = {n.name: t.name for n, t in joint.twin.items() if t.name in built.ops}
    calls = [n for n in joint.module.graph.nodes if n.op == "call_function"]
    ordered = [n.name for n in calls if n in backward and n.name in built.ops]
    readers: dict[str, list[str]] = {}
    place = {n.name: i for i, n in enumerate(calls)}
    for name in ordered:
        producers = [built.made_by[t] for t in built.ops[name].inputs]
        for producer in producers:
            readers.setdefault(producer, []).append(name)
        found = twin.get(name) or min((twin[p] for p in producers if p in twin), key=place.__getitem__, default=None)
        if found is not None:
            twin[name] = found
    for name in reversed(ordered):
        found = twin.get(name) or next((twin[r] for r in readers.get(name, ()) if r in twin), None)
        found = found or next(iter(_forward_calls(built, name)), None)
        if found is None:
            continue
        twin[name] = found
        owner = built.ops[found]
        built.change(name, forward=found, module=owner.module, source=owner.source)


def _forward_calls(built: Built, name: str) -> Iterator[str]:
    for tensor in built.ops[name].inputs:
        producer = built.ops[built.made_by[tensor]]
        if producer.phase == "forward":
            yield producer.name
