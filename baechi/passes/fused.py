"""The op that stands for several: what it costs, reads, makes and needs."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.passes.storage import storage

__all__ = ["fused_graph"]

Seconds = Callable[[Op], float]


def fused_graph(
    graph: Graph, parts: Sequence[Sequence[Op]], seconds: Seconds | None = None
) -> tuple[Graph, dict[str, tuple[str, ...]]]:
    """The graph with each part as one op, and the members of each by the new op's name.

    Args:
        graph: what `parts` partition.
        parts: members in topological order; contracting them must leave the graph acyclic.
        seconds: time of an op.
    """
    firsts = {id(part): min(graph.index[op.name] for op in part) for part in parts}
    parts = sorted(parts, key=lambda part: firsts[id(part)])
    names = {op.name: graph.ops[firsts[id(part)]].name for part in parts for op in part}
    bases = storage(graph)
    made = [_outputs(graph, part, bases, names) for part in parts]
    left = {t.name for outputs in made for t in outputs}
    ops = []
    for part, outputs in zip(parts, made, strict=True):
        outputs = tuple(_rebased(t, bases, left) for t in outputs)
        ops.append(_one(part[0], outputs, names) if len(part) == 1 else _fused(part, outputs, bases, names, seconds))
    members = {names[part[0].name]: tuple(op.name for op in part) for part in parts}
    return graph.with_ops(ops), members


def _outputs(graph: Graph, part: Sequence[Op], bases: dict[str, str], names: dict[str, str]) -> tuple[Tensor, ...]:
    """Tensors that leave the part, and those in whose memory they lie."""
    if len(part) == 1:
        return part[0].outputs
    own = names[part[0].name]
    tensors = [t for op in part for t in op.outputs]
    leaving = {t.name for t in tensors if t.keep or any(names[r.name] != own for r in graph.readers[t.name])}
    leaving |= {bases[name] for name in leaving}
    return tuple(t for t in tensors if t.name in leaving)


def _rebased(tensor: Tensor, bases: dict[str, str], left: set[str]) -> Tensor:
    """A view of a tensor that is gone becomes a view of what that was a view of."""
    if tensor.alias_of is None or tensor.alias_of in left:
        return tensor
    base = bases[tensor.name]
    return replace(tensor, alias_of=base if base != tensor.name and base in left else None)


def _one(op: Op, outputs: tuple[Tensor, ...], names: dict[str, str]) -> Op:
    after = tuple(dict.fromkeys(names[name] for name in op.after))
    return replace(op, outputs=outputs, after=after, forward=names.get(op.forward or "", op.forward))


def _fused(
    part: Sequence[Op],
    outputs: tuple[Tensor, ...],
    bases: dict[str, str],
    names: dict[str, str],
    seconds: Seconds | None,
) -> Op:
    own = names[part[0].name]
    inside = {t.name for op in part for t in op.outputs}
    main = max(part, key=lambda op: op.flops)
    forward = next((names.get(op.forward, op.forward) for op in part if op.forward), None)
    experts, copies = {op.expert for op in part}, {op.copy for op in part}
    return Op(
        name=own,
        kind="fused",
        inputs=tuple(dict.fromkeys(name for op in part for name in op.inputs if name not in inside)),
        outputs=outputs,
        after=tuple(dict.fromkeys(names[name] for op in part for name in op.after if names[name] != own)),
        phase=main.phase,
        flops=sum(op.flops for op in part),
        moved_bytes=sum(op.moved_bytes for op in part),
        temp_bytes=_working_bytes(part, {t.name for t in outputs}, bases),
        persistent_bytes=sum(op.persistent_bytes for op in part),
        seconds=sum(seconds(op) for op in part) if seconds is not None else _total([op.seconds for op in part]),
        host_seconds=_total([op.host_seconds for op in part]),
        arithmetic=main.arithmetic,
        group=main.group,
        module=main.module,
        source=main.source,
        forward=None if forward == own else forward,
        expert=experts.pop() if len(experts) == 1 else None,
        copy=copies.pop() if len(copies) == 1 else None,
    )


def _working_bytes(part: Sequence[Op], outputs: set[str], bases: dict[str, str]) -> int:
    """The highest sum of live inner tensors and temporaries while the members run in turn.

    An upper bound: what leaves the fused op is charged from its start as it is.
    """
    size = {t.name: t.nbytes - t.held for op in part for t in op.outputs if t.alias_of is None}
    last: dict[str, int] = {}
    for i, op in enumerate(part):
        for name in (*op.inputs, *(t.name for t in op.outputs)):
            if bases[name] in size and bases[name] not in outputs:
                last[bases[name]] = i
    dies: dict[int, int] = {}
    for name, i in last.items():
        dies[i] = dies.get(i, 0) + size[name]
    live = peak = 0
    for i, op in enumerate(part):
        live += sum(size[t.name] for t in op.outputs if t.name in last)
        peak = max(peak, live + op.temp_bytes)
        live -= dies.get(i, 0)
    return peak


def _total(times: Sequence[float | None]) -> float | None:
    declared = [time for time in times if time is not None]
    return sum(declared) if len(declared) == len(times) else None
