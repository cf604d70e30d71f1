"""The placed module inside the user's own training loop: forward and backward as one autograd function."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from baechi.backends.pytorch.cuda import Streamed
from baechi.backends.pytorch.executor import check_input, inline_bytes, torch_devices
from baechi.backends.pytorch.rewrite import SOURCES, Schedule, schedule
from baechi.backends.pytorch.source import Job
from baechi.backends.pytorch.threads import Crew, Threaded
from baechi.errors import BaechiError
from baechi.frontends.pytorch.program import TorchProgram
from baechi.ir.graph import Graph
from baechi.ir.plan import Plan

__all__ = ["PlacedForward", "make_forward"]

Kept = dict[str, dict[str, Any]]


def make_forward(
    program: TorchProgram, plan: Plan, module: nn.Module, *, devices: Mapping[str, torch.device] | None = None
) -> "PlacedForward":
    """A function of the module's own inputs that computes where the plan says.

    Args:
        program: captured without a loss and without an optimiser.
        plan: for the program's graph.
        module: whose parameters and buffers are read at each call, and whose buffers are written.
        devices: as for the executor.

    Raises:
        BaechiError: B603 to B606, as for the executor.
    """
    return PlacedForward(program, plan, module, devices)


class PlacedForward:
    """Called like the module; `backward` of what it returns runs the placed backward pass.

    Gradients arrive at the user's own parameters, so any optimiser and any loop works. What
    forward saves for backward stays on its devices until backward has run, once.
    """

    def __init__(
        self, program: TorchProgram, plan: Plan, module: nn.Module, devices: Mapping[str, torch.device] | None = None
    ) -> None:
        if program.has_loss or program.updates:
            raise BaechiError(
                "B606", "the step has a loss or an optimiser of its own", help="capture it without, or use the executor"
            )
        self.program, self.plan = program, plan
        self.devices = torch_devices(plan, devices)
        self.outputs = tuple(t for t in program.outputs if t is not None)
        self.differentiable = frozenset(_output_of(tangent) for tangent in program.tangents)
        self.parameters = {name: _slot(module, name) for name in program.parameters}
        self.buffers = {name: _slot(module, name) for name in program.buffers}
        self._forward, self._backward = _split(program, plan, self.outputs, inline_bytes(self.devices))
        self._crew: Crew | None = None
        self._runners: dict[str, Threaded | Streamed] = {}
        self._constants = {t: v.to(self.devices[plan.device[t]]) for t, v in program.constants.items()}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run forward.

        Raises:
            BaechiError: B601 when an op fails, B608 when an input is not like the captured one.
        """
        inputs = self._inputs(pytree.tree_leaves((args, kwargs)))
        if torch.is_grad_enabled():
            parameters = [self._parameter(name) for name in self.program.gradients]
            results = _Placed.apply(self, inputs, *parameters)  # type: ignore[no-untyped-call]
        else:
            results = self.forward(inputs, None)
        found = iter(results)
        program = self.program
        outputs = [fixed if t is None else next(found) for t, fixed in zip(program.outputs, program.fixed, strict=True)]
        return pytree.tree_unflatten(outputs, program.output_spec)

    def forward(self, inputs: Mapping[str, torch.Tensor], kept: Kept | None) -> tuple[torch.Tensor, ...]:
        """Run the forward part; `kept` is filled with what backward needs, or None to keep nothing."""
        program = self.program
        values: Kept = {device: {} for device in self.plan.order}
        moved = []
        for names, slots in ((program.parameters, self.parameters), (program.buffers, self.buffers)):
            for name, op in names.items():
                owner, key = slots[name]
                held = self._put(values, op, owner[key])
                if name in program.buffer_updates and held.device != owner[key].device:
                    moved.append((owner[key], held))
        for op, value in (*inputs.items(), *self._constants.items()):
            self._put(values, op, value)
        if kept is not None:
            for device, tensors in self._backward.present.items():
                kept[device] = {t: values[device][t] for t in tensors if t in values[device]}
        results = self._run("evaluate" if kept is None else "forward", values, kept)
        for buffer, held in moved:
            buffer.copy_(held)
        return tuple(results[t] for t in self.outputs)

    def backward(self, kept: Kept, tangents: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Run the backward part on what forward kept; returns the gradients."""
        for op in self.program.tangents:
            like = self.program.values[op].meta["val"]
            tangent = torch.empty_strided(like.size(), like.stride(), dtype=like.dtype)
            self._put(kept, op, tangent.copy_(tangents[_output_of(op)]))
        results = self._run("backward", kept, None)
        return _unshared([results[t] for t in self.program.gradients.values()])

    def close(self) -> None:
        """End the threads; the next call starts new ones."""
        self._runners.clear()
        if self._crew is not None:
            self._crew.close()
            self._crew = None

    def _run(self, part: str, values: Kept, kept: Kept | None) -> dict[str, Any]:
        try:
            return self._runner(part).run(values, kept)
        except BaseException:
            self.close()
            raise

    def _runner(self, part: str) -> "Threaded | Streamed":
        if part not in self._runners:
            actions = self._backward if part == "backward" else self._forward
            if part == "evaluate":
                actions = replace(actions, keep={})
            is_cuda = any(d.type != "cpu" for d in self.devices.values())
            job = Job(self.program, actions, self.devices, streams=is_cuda)
            self._runners[part] = Streamed(job, {}) if is_cuda else Threaded(job, self._threads(), {}, inference=False)
        return self._runners[part]

    def _threads(self) -> Crew:
        if self._crew is None:
            size = max(len(self._forward.agents), len(self._backward.agents))
            self._crew = Crew([f"placed module {i}" for i in range(size)])
        return self._crew

    def _inputs(self, leaves: Sequence[Any]) -> dict[str, torch.Tensor]:
        program = self.program
        if len(leaves) != len(program.inputs):
            raise BaechiError("B608", f"the module was captured with {len(program.inputs)} inputs, not {len(leaves)}")
        inputs = {}
        for op, value in zip(program.inputs, leaves, strict=True):
            if op is None:
                continue
            check_input(program, op, value)
            if value.requires_grad and torch.is_grad_enabled():
                raise BaechiError(
                    "B608",
                    f"input '{op}' wants a gradient, and a placed module gives gradients to its parameters only",
                    help="detach() the input, or place the whole model",
                )
            inputs[op] = value
        return inputs

    def _put(self, values: Kept, op: str, value: torch.Tensor) -> torch.Tensor:
        device = self.plan.device[op]
        held = value.detach().to(self.devices[device])
        values[device][op] = held
        return held

    def _parameter(self, name: str) -> torch.Tensor:
        owner, key = self.parameters[name]
        parameter: torch.Tensor = owner[key]
        return parameter


class _Placed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, placed: PlacedForward, inputs: Mapping[str, torch.Tensor], *_: torch.Tensor) -> Any:
        ctx.placed, ctx.kept = placed, {device: {} for device in placed.plan.order}
        results = placed.forward(inputs, ctx.kept)
        ctx.mark_non_differentiable(*(r for i, r in enumerate(results) if i not in placed.differentiable))
        return results

    @staticmethod
    def backward(ctx: Any, *tangents: torch.Tensor) -> Any:
        if ctx.kept is None:
            raise BaechiError(
                "B609",
                "backward ran a second time through a placed module, which has freed what forward saved",
                help="call the module again, or add the losses up before one backward",
            )
        kept, ctx.kept = ctx.kept, None
        return (None, None, *ctx.placed.backward(kept, tangents))


def _split(program: TorchProgram, plan: Plan, outputs: Sequence[str], inline: int) -> tuple[Schedule, Schedule]:
    """The forward and the backward part; forward keeps what backward needs."""
    graph = program.graph
    first = _forward_ops(graph, outputs)
    second = [op.name for op in graph.ops if op.name not in first]
    forward = schedule(graph, plan, ops=first, results=outputs, inline_bytes=inline)
    gradients = tuple(dict.fromkeys(program.gradients.values()))
    backward = schedule(graph, plan, ops=second, before=first, results=gradients, inline_bytes=inline)
    keep = {
        device: tuple(t for t in tensors if not _is_source(graph, plan, t, device))
        for device, tensors in backward.present.items()
    }
    return replace(forward, keep=keep), backward


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


def _slot(module: nn.Module, name: str) -> tuple[Any, str]:
    """Where a parameter or buffer hangs, so that it is found again after it was exchanged."""
    path, _, key = name.rpartition(".")
    owner = module.get_submodule(path)
    return (owner._parameters if key in owner._parameters else owner._buffers), key


def _output_of(tangent: str) -> int:
    """The output whose gradient a tangent op is: the frontend numbers them alike."""
    match = re.match(r"tangent_(\d+)", tangent)
    if match is None:
        raise BaechiError("B603", f"'{tangent}' does not say which output it belongs to")
    return int(match[1])


def _unshared(gradients: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Gradients of which no two share memory: a loop may scale each in place."""
    seen: set[int] = set()
    found = []
    for gradient in gradients:
        storage = gradient.untyped_storage().data_ptr()
        found.append(gradient.clone() if storage in seen else gradient)
        seen.add(storage)
    return tuple(found)
