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

    An op lasts from its first node's kernel to its last one's; what is there before the step takes no time. One
    device may run several ops at once, on the threads that all share.
    Logical devices hand tensors over without a copy and without a note, so a transfer is drawn from when its
    tensor was made to when it is first read.

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
    ran = _runs(program, plan, traced, names)
    spans = [OpSpan(op.name, plan.device[op.name], *ran.get(op.name, (0.0, 0.0))) for op in program.graph.ops]
    held = persistent_bytes(program, plan)
    curves = curves_of(traced, names)
    return Timeline(
        tuple(sorted(spans, key=lambda s: (s.start, s.end))),
        tuple(sorted(_transfers(program, plan, ran), key=lambda s: (s.start, s.end))),
        {device: tuple((at, held[device] + nbytes) for at, nbytes in curve) for device, curve in curves.items()},
    )


def _runs(
    program: TensorFlowProgram, plan: Plan, traced: Traced, names: Mapping[str, str]
) -> dict[str, tuple[float, float]]:
    """When each op's nodes began and ended, its own constants aside, which TensorFlow makes when it likes."""
    ran: dict[str, tuple[float, float]] = {}
    for event in traced.events:
        op = program.op_of.get(event.node)
        if op is not None and event.kind != "Const" and names.get(event.device) == plan.device[op]:
            before = ran.get(op, (event.start, event.end))
            ran[op] = min(before[0], event.start), max(before[1], event.end)
    return ran


def _transfers(
    program: TensorFlowProgram, plan: Plan, ran: Mapping[str, tuple[float, float]]
) -> Iterator[TransferSpan]:
    for tensor, source, destination in plan.transfers:
        made = ran.get(program.graph.producer[tensor].name, (0.0, 0.0))[1]
        readers = (op.name for op in program.graph.readers[tensor] if plan.device[op.name] == destination)
        read = min((ran[name][0] for name in readers if name in ran), default=made)
        yield TransferSpan(tensor, source, destination, made, max(made, read), program.graph.tensor[tensor].nbytes)
