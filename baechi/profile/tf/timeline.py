"""Traced TensorFlow steps as timelines of their plan."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from baechi.backends.tf.devices import local_name
from baechi.backends.tf.rewrite import placed_graph
from baechi.frontends.tf.program import TensorFlowProgram
from baechi.ir.plan import Plan
from baechi.ir.timeline import OpSpan, Timeline, TransferSpan
from baechi.profile.tf.memory import curves_of, persistent_bytes
from baechi.profile.tf.trace import Traced, Tracer

__all__ = ["traced_timelines"]


def traced_timelines(
    program: TensorFlowProgram, plan: Plan, leaves: Sequence[Any], *, steps: int, warmup: int = 1
) -> tuple[Timeline, ...]:
    """Train some steps on logical CPU devices of this process under TensorFlow's tracing.

    An op lasts from its first node's kernel to its last one's; what is there before the step takes no time.
    A transfer lasts from when its tensor was made to when TensorFlow handed it to the other device.

    Args:
        program: the step.
        plan: for its graph.
        leaves: the flattened arguments of a step.
        steps: how many are traced.
        warmup: how many come before.

    Raises:
        BaechiError: B622 when the step uses a resource that is no variable.
    """
    full = {device: local_name("CPU", i) for i, device in enumerate(plan.cluster.device)}
    with Tracer(program, placed_graph(program, plan, full), leaves, devices=len(full), threads=len(full)) as tracer:
        for _ in range(warmup):
            tracer.run()
        return tuple(_timeline(program, plan, tracer.run(), {f: d for d, f in full.items()}) for _ in range(steps))


def _timeline(program: TensorFlowProgram, plan: Plan, traced: Traced, names: Mapping[str, str]) -> Timeline:
    ran: dict[str, tuple[float, float]] = {}
    for event in traced.events:
        op = program.op_of.get(event.node)
        if op is not None and names.get(event.device) == plan.device[op]:
            before = ran.get(op, (event.start, event.end))
            ran[op] = min(before[0], event.start), max(before[1], event.end)
    spans = [OpSpan(op.name, plan.device[op.name], *ran.get(op.name, (0.0, 0.0))) for op in program.graph.ops]
    held = persistent_bytes(program, plan)
    curves = curves_of(traced, names)
    return Timeline(
        tuple(sorted(spans, key=lambda s: (s.start, s.end))),
        tuple(sorted(_transfers(program, plan, traced, names, ran), key=lambda s: (s.start, s.end))),
        {device: tuple((at, held[device] + nbytes) for at, nbytes in curve) for device, curve in curves.items()},
    )


def _transfers(
    program: TensorFlowProgram,
    plan: Plan,
    traced: Traced,
    names: Mapping[str, str],
    ran: Mapping[str, tuple[float, float]],
) -> Iterator[TransferSpan]:
    """Those of the plan that TensorFlow carried out: it sends nothing that its optimiser made twice."""
    sent: dict[str, str] = {}  # node:index by the name under which it travels
    for graph in traced.graphs:
        for node in graph.node:
            if node.op == "_Send":
                source, _, index = node.input[0].partition(":")
                sent[node.attr["tensor_name"].s.decode()] = f"{source}:{index or 0}"
    came: dict[tuple[str, str], float] = {}
    end = {(event.device, event.node): event.end for event in traced.events}
    for graph in traced.graphs:
        for node in graph.node:
            at = end.get((node.device, node.name))
            if node.op == "_Recv" and at is not None:
                name = sent.get(node.attr["tensor_name"].s.decode(), "")
                came[name, names.get(node.device, "")] = at
    for tensor, source, destination in plan.transfers:
        at = came.get((program.tensors.get(tensor, ""), destination))
        if at is not None:
            start = ran.get(program.graph.producer[tensor].name, (0.0, 0.0))[1]
            nbytes = program.graph.tensor[tensor].nbytes
            yield TransferSpan(tensor, source, destination, start, max(start, at), nbytes)
