"""Cut a captured step in two: the forward part, and the backward part that runs on what forward kept."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from baechi.backends.pytorch.rewrite import SOURCES, Schedule, alias_root, schedule
from baechi.errors import BaechiError
from baechi.frontends.pytorch.program import TorchProgram
from baechi.ir.graph import Graph
from baechi.ir.plan import Plan

__all__ = ["Parts", "split"]


@dataclass(frozen=True, eq=False)
class Parts:
    """The two parts of a step.

    Args:
        program: the step.
        forward: gives the outputs, then the `renewed` buffers, and keeps what backward needs.
        backward: gives the gradients.
        outputs: the tensors among the module's results.
        renewed: by buffer, the tensor of its new value, for buffers whose old value backward reads:
            they are written when all else is done.
    """

    program: TorchProgram
    forward: Schedule
    backward: Schedule
    outputs: tuple[str, ...]
    renewed: Mapping[str, str]

    @cached_property
    def gradients(self) -> tuple[str | None, ...]:
        """The tensors of the gradients: of the parameters, then of the inputs that want one."""
        return (*self.program.gradients.values(), *self.program.input_gradients.values())

    @cached_property
    def tangents(self) -> dict[str, int]:
        """The output whose gradient each tangent op is."""
        return {tangent: _output_of(tangent) for tangent in self.program.tangents}

    @cached_property
    def kept(self) -> frozenset[str]:
        """The tensors that share memory with those that backward reads."""
        graph = self.program.graph
        return frozenset(alias_root(graph, t) for tensors in self.backward.present.values() for t in tensors)

    def reached(self, missing: frozenset[int]) -> frozenset[str]:
        """The tensors that depend on the gradient of an output, of those that are not missing."""
        graph = self.program.graph
        found: set[str] = set()
        for i in graph.order:
            op = graph.ops[i]
            given = self.tangents.get(op.name)
            if (given is not None and given not in missing) or not found.isdisjoint(op.inputs):
                found.update(t.name for t in op.outputs)
        return frozenset(found)


def split(program: TorchProgram, plan: Plan, *, inline_bytes: int) -> Parts:
    """Cut a step that has neither a loss nor an optimiser of its own.

    Raises:
        BaechiError: B603 to B605 as for `schedule`.
    """
    outputs = tuple(t for t in program.outputs if t is not None)
    first = _forward_ops(program.graph, outputs)
    parts = _parts(program, plan, first, outputs, {}, inline_bytes)
    written = {program.buffers[name]: name for name in program.buffer_updates}
    renewed = {
        name: program.graph.op[program.buffer_updates[name]].inputs[0]
        for op, name in written.items()
        if program.graph.op[op].outputs[0].name in parts.kept
    }
    if not renewed:
        return parts
    late = {program.buffer_updates[name] for name in renewed}
    return _parts(program, plan, first - late, outputs, renewed, inline_bytes)


def _parts(
    program: TorchProgram,
    plan: Plan,
    first: frozenset[str],
    outputs: tuple[str, ...],
    renewed: Mapping[str, str],
    inline_bytes: int,
) -> Parts:
    graph = program.graph
    assigns = frozenset(program.buffer_updates.values())
    second = [op.name for op in graph.ops if op.name not in first and op.name not in assigns]
    results = tuple(dict.fromkeys((*outputs, *renewed.values())))
    forward = schedule(graph, plan, ops=first, results=results, inline_bytes=inline_bytes)
    gradients = (*program.gradients.values(), *program.input_gradients.values())
    wanted = tuple(dict.fromkeys(t for t in gradients if t is not None))
    backward = schedule(graph, plan, ops=second, before=first, results=wanted, inline_bytes=inline_bytes)
    keep = {
        device: tuple(t for t in tensors if not _is_source(graph, plan, t, device))
        for device, tensors in backward.present.items()
    }
    return Parts(program, replace(forward, keep=keep), backward, outputs, renewed)


def _is_source(graph: Graph, plan: Plan, tensor: str, device: str) -> bool:
    maker = graph.producer[tensor]
    return maker.kind in SOURCES and plan.device[maker.name] == device


def _forward_ops(graph: Graph, outputs: Sequence[str]) -> frozenset[str]:
    """What the outputs and the new buffers need, and what else is forward and needs no tangent."""
    late: set[str] = set()
    for i in graph.order:
        op = graph.ops[i]
        if op.kind == "tangent" or any(graph.producer[t].name in late for t in op.inputs):
            late.add(op.name)
    stack = [graph.producer[t].name for t in outputs]
    stack += [o.name for o in graph.ops if o.name not in late and (o.phase == "forward" or o.kind == "assign")]
    found: set[str] = set()
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            stack += [graph.producer[t].name for t in graph.op[name].inputs]
    return frozenset(found)


def _output_of(tangent: str) -> int:
    """The output whose gradient a tangent op is: the frontend numbers them alike."""
    match = re.match(r"tangent_(\d+)", tangent)
    if match is None:
        raise BaechiError("B603", f"'{tangent}' does not say which output it belongs to")
    return int(match[1])
