"""The joint graph by `aot_export_joint_with_descriptors`: the one file that knows this private interface of torch."""

import contextlib
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._functorch import aot_autograd
from torch.fx._lazy_graph_module import _use_lazy_graph_module

from baechi.frontends.pytorch.joint import Joint, Role
from baechi.frontends.pytorch.modules import Step

__all__ = ["Unsupported", "trace_joint"]

_OLDEST = (2, 11)
_EXPORT: Any = getattr(aot_autograd, "aot_export_joint_with_descriptors", None)


class Unsupported(Exception):
    """This tracer cannot express the step; another one may."""


def _unneeded() -> dict[str, bool]:
    """What the exporter may leave out, where this torch lets it: notes on every torch function."""
    option = "_disable_torch_fn_metadata_mode"
    return {option: True} if option in inspect.signature(_EXPORT).parameters else {}


def _recent() -> bool:
    numbers = re.findall(r"\d+", torch.__version__)[:2]
    return tuple(int(n) for n in numbers) >= _OLDEST


def trace_joint(step: Step, tensors: Sequence[Tensor]) -> Joint:
    """Trace forward and backward of a step at once.

    Args:
        step: with fake weights.
        tensors: its fake inputs.

    Raises:
        Unsupported: when this torch lacks the interface, or the graph has ends of an unknown kind.
    """
    if _EXPORT is None or not _recent():
        raise Unsupported(f"torch {torch.__version__} has no aot_export_joint_with_descriptors that baechi knows")
    with contextlib.ExitStack() as stack:
        # Code for the graph is generated when someone asks for it, not after each pass of torch's.
        stack.enter_context(_use_lazy_graph_module(True))
        exported = _EXPORT(stack, step, tuple(tensors), **_unneeded())
    return _read(exported.graph_module, {key: name for name, key in step.names.items()})


def _read(module: fx.GraphModule, names: Mapping[str, str]) -> Joint:
    roles = {n: _role(n.meta["desc"], names) for n in module.graph.find_nodes(op="placeholder")}
    end = module.graph.output_node()
    outputs: dict[int, fx.Node] = {}
    gradients: dict[str, fx.Node] = {}
    buffers: dict[str, fx.Node] = {}
    inputs: dict[int, fx.Node] = {}
    for node, desc in zip(end.args[0], end.meta["desc"], strict=True):  # type: ignore[arg-type]
        if isinstance(node, fx.Node):
            _end(node, desc, names, (outputs, gradients, buffers, inputs))
    nodes = [n for n in module.graph.nodes if n.op == "call_function"]
    backward = frozenset(n for n in nodes if n.meta.get("partitioner_tag") == "is_backward" or _in_backward(n))
    ordered = tuple(outputs[i] for i in sorted(outputs))
    return Joint(module, roles, ordered, gradients, buffers, _twins(nodes, backward), backward, inputs)


def _in_backward(node: fx.Node) -> bool:
    return bool(node.meta.get("autograd_backward", False))


def _role(desc: Any, names: Mapping[str, str]) -> Role:
    match type(desc).__name__:
        case "ParamAOTInput":
            return Role("parameter", names[desc.target])
        case "BufferAOTInput":
            return Role("buffer", names[desc.target])
        case "PlainAOTInput":
            return Role("input", index=desc.idx)
        case "TangentAOTInput" if type(desc.output).__name__ == "PlainAOTOutput":
            return Role("tangent", index=desc.output.idx)
    raise Unsupported(f"an input of the joint graph is {desc}")


def _end(node: fx.Node, desc: Any, names: Mapping[str, str], found: tuple[dict[int, fx.Node], Any, Any, Any]) -> None:
    outputs, gradients, buffers, inputs = found
    match type(desc).__name__, type(getattr(desc, "grad_of", getattr(desc, "mutated_input", None))).__name__:
        case "PlainAOTOutput", _:
            outputs[desc.idx] = node
        case "GradAOTOutput", "ParamAOTInput":
            gradients[names[desc.grad_of.target]] = node
        case "GradAOTOutput", "PlainAOTInput":
            inputs[desc.grad_of.idx] = node
        case "InputMutationAOTOutput", "BufferAOTInput":
            buffers[names[desc.mutated_input.target]] = node
        case "InputMutationAOTOutput", "PlainAOTInput":
            pass  # the step reads the user's tensors and leaves them alone
        case _:
            raise Unsupported(f"an output of the joint graph is {desc}")


def _twins(nodes: Sequence[fx.Node], backward: frozenset[fx.Node]) -> dict[fx.Node, fx.Node]:
    """A backward node belongs to the first forward node with its autograd sequence number.

    A sum of gradients, which no operator of the backward pass makes, carries the newest number of all: one
    that comes after nodes with other numbers has no twin.
    """
    first: dict[int, fx.Node] = {}
    for node in nodes:
        if node not in backward and "seq_nr" in node.meta:
            first.setdefault(node.meta["seq_nr"], node)
    newest, passed = max(first, default=-1), False
    twins: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        number = node.meta.get("seq_nr")
        if node in backward and number in first and not (passed and number == newest):
            twins[node] = first[number]
            passed = passed or number != newest
    return twins
