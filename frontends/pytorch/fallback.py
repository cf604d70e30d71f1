"""The joint graph by `make_fx` of a functional step, for what the joint exporter cannot express.

Two traces: the first runs autograd, and is not functional; the second removes its mutations.
Dropout inside fused attention draws in another memory order than eager code does, so that its noise
is not eager's; everything else is.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.func import functional_call, functionalize
from torch.fx import traceback as fx_traceback
from torch.fx.experimental.proxy_tensor import make_fx

from baechi.frontends.pytorch.joint import Joint, Role
from baechi.frontends.pytorch.modules import Step

__all__ = ["trace_step"]

aten = torch.ops.aten
_LINK = "baechi_link"
"""Under ``meta["custom"]``: (autograd sequence number, whether the node is of the backward pass)."""


def trace_step(step: Step, tensors: Sequence[Tensor]) -> Joint:
    """Trace forward and backward of a step by `make_fx`.

    Args:
        step: with fake weights.
        tensors: its fake inputs.
    """
    keys = {key: name for name, key in step.names.items()}
    weights = {**dict(step.named_parameters()), **dict(step.named_buffers())}
    trained = [key for key, p in step.named_parameters() if p.requires_grad]
    made = _outline(step, weights, tensors)
    tangents = [torch.ones_like(made[i]) for i in sorted(made)]
    parts = (len(weights), len(tensors))
    wanting = [i for i, t in enumerate(tensors) if t.requires_grad]
    learning: list[str | int] = [*trained, *wanting]
    missing: set[str | int] = set()

    def both(*flat: Tensor) -> list[Tensor]:
        """Outputs that need no gradient included, then the gradients that exist."""
        named = dict(zip(weights, flat, strict=False))
        given, rest = flat[parts[0] : sum(parts)], flat[sum(parts) :]
        outputs = functional_call(step, named, tuple(given))
        with _backward_notes([outputs[i] for i in sorted(made)]):
            found = torch.autograd.grad(
                [outputs[i] for i in sorted(made)],
                [*(named[k] for k in trained), *(given[i] for i in wanting)],
                list(rest),
                allow_unused=True,
            )
        missing.update(k for k, g in zip(learning, found, strict=True) if g is None)
        return [*outputs, *(g for g in found if g is not None)]

    flat = [*weights.values(), *tensors, *tangents]
    table = {aten.native_batch_norm.default: _batch_norm}
    with fx_traceback.preserve_node_meta():
        first = make_fx(both, decomposition_table=table, tracing_mode="fake")(*flat)
        _note_links(first)
        module = _functional(first, flat)
    return _read(module, keys, list(weights), len(tensors), sorted(made), [k for k in learning if k not in missing])


def _outline(step: Step, weights: dict[str, Tensor], tensors: Sequence[Tensor]) -> dict[int, Tensor]:
    """Outputs that a gradient can flow into, by position."""
    outputs = functional_call(step, weights, tuple(tensors))
    return {i: t.detach() for i, t in enumerate(outputs) if t.requires_grad}


def _batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch normalisation whose writes to the running statistics can be seen."""
    if mean is None:
        return torch.ops.aten._native_batch_norm_legit.no_stats(x, weight, bias, training, momentum, eps)  # type: ignore[no-any-return]
    functional = torch.ops.aten._native_batch_norm_legit_functional
    y, saved_mean, saved_var, new_mean, new_var = functional(x, weight, bias, mean, var, training, momentum, eps)
    if training:
        mean.copy_(new_mean)
        var.copy_(new_var)
    return y, saved_mean, saved_var


@contextlib.contextmanager
def _backward_notes(outputs: Sequence[Tensor]) -> Iterator[None]:
    """Nodes traced inside are of the backward pass, and carry the number of what they differentiate."""

    def note(function: Any) -> Any:
        def before(_: Any) -> None:
            fx_traceback.current_meta["custom"] = {_LINK: (function._sequence_nr(), True)}

        return before

    handles: list[Any] = []
    waiting, seen = [t.grad_fn for t in outputs], set()
    while waiting:
        function = waiting.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        handles.append(function.register_prehook(note(function)))
        waiting += [following for following, _ in function.next_functions]
    saved = fx_traceback.current_meta.get("custom", {})
    fx_traceback.current_meta["custom"] = {_LINK: (-1, True)}
    try:
        yield
    finally:
        fx_traceback.current_meta["custom"] = saved
        for handle in handles:
            handle.remove()


def _note_links(module: fx.GraphModule) -> None:
    """Forward nodes' numbers go where the second trace keeps them."""
    for node in module.graph.nodes:
        custom = node.meta.get("custom", {})
        if _LINK not in custom:
            node.meta["custom"] = {**custom, _LINK: (node.meta.get("seq_nr", -1), False)}


def _functional(module: fx.GraphModule, flat: Sequence[Tensor]) -> fx.GraphModule:
    def run(*values: Tensor) -> Any:
        return fx.Interpreter(module).run(*values)

    with torch.no_grad():
        return make_fx(functionalize(run, remove="mutations"), tracing_mode="fake")(*flat)


def _read(
    module: fx.GraphModule,
    keys: dict[str, str],
    weights: Sequence[str],
    inputs: int,
    tangents: Sequence[int],
    trained: Sequence[str | int],
) -> Joint:
    placeholders = list(module.graph.find_nodes(op="placeholder"))
    roles = {n: Role("parameter" if k[0] == "p" else "buffer", keys[k]) for n, k in zip(placeholders, weights)}  # noqa: B905
    rest = placeholders[len(weights) :]
    roles |= {n: Role("input", index=i) for i, n in enumerate(rest[:inputs])}
    roles |= {n: Role("tangent", index=i) for i, n in zip(tangents, rest[inputs:], strict=True)}
    buffers = _written(module, roles)
    results = list(module.graph.output_node().args[0])  # type: ignore[arg-type]
    split = len(results) - len(trained)
    module.graph.output_node().args = ([*results, *buffers.values()],)
    links = {n: n.meta.get("custom", {}).get(_LINK, (-1, False)) for n in module.graph.nodes if n.op == "call_function"}
    owners: dict[int, fx.Node] = {}
    for node, (number, late) in links.items():
        if not late and number >= 0:
            owners.setdefault(number, node)
    return Joint(
        module,
        roles,
        results[:split],
        {keys[k]: g for k, g in zip(trained, results[split:], strict=True) if isinstance(k, str)},
        buffers,
        {n: owners[number] for n, (number, late) in links.items() if late and number in owners},
        frozenset(n for n, (_, late) in links.items() if late),
        {k: g for k, g in zip(trained, results[split:], strict=True) if isinstance(k, int)},
    )


def _written(module: fx.GraphModule, roles: dict[fx.Node, Role]) -> dict[str, fx.Node]:
    """Take the last writes to the placeholders out of the graph: new value by buffer name."""
    found: dict[str, fx.Node] = {}
    for node in list(module.graph.find_nodes(op="call_function", target=aten.copy.default)):
        written, value = node.args[:2]
        if _alike(written.meta["val"], value.meta["val"]):
            node.replace_all_uses_with(value)
            module.graph.erase_node(node)
    for node in list(module.graph.find_nodes(op="call_function", target=aten.copy_.default)):
        written, value = node.args[:2]
        node.replace_all_uses_with(value)
        module.graph.erase_node(node)
        if roles[written].kind == "buffer":
            found[roles[written].name] = value
    return found


def _alike(a: Tensor, b: Tensor) -> bool:
    return (a.shape, a.stride(), a.dtype) == (b.shape, b.stride(), b.dtype)
