"""Forward-only placement: place the forward ops, then let everything after them follow.

The graph to place is a third of the size, and a backward op sits where the activations that it
reads already are. Right when memory is ample; under tight caps the joint graph places better
(Baechi, extended version, section 4).
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from baechi.errors import BaechiError
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.passes.storage import storage

__all__ = ["follow", "forward_only", "hosts"]

Seconds = Callable[[Op], float]

_STATE = ("buffer", "constant", "input", "parameter", "tangent")


def forward_only(graph: Graph, *, charge: bool = True, seconds: Seconds | None = None) -> Graph:
    """The forward ops alone, each charged with what will follow it.

    Activations that a later phase reads are kept to the end of the step, as training keeps them.

    Args:
        graph: a whole training step.
        charge: add the time, FLOPs, moved and persistent bytes of the ops that follow a forward op
            to it, and the working memory that the largest of them needs. What is there before the
            step, such as a parameter, takes no time: the op that reads it pays for its update.
        seconds: time of an op; without it a charged op has a declared time only when all that it
            stands for have one, and is otherwise left to the cost model, by its summed FLOPs and bytes.

    Raises:
        BaechiError: B209 when the graph has no forward op.

    Example:
        >>> a = Op("a", "mm", outputs=(Tensor("x", 8),), flops=1.0)
        >>> b = Op("b", "mm", inputs=("x",), phase="backward", forward="a", flops=2.0)
        >>> [(op.name, op.flops, op.outputs[0].keep) for op in forward_only(Graph((a, b))).ops]
        [('a', 3.0, True)]
    """
    host = hosts(graph)
    payer = _payers(graph, host)
    held: defaultdict[str, int] = defaultdict(int)
    followers: defaultdict[str, list[Op]] = defaultdict(list)
    for op in graph.ops:
        if host[op.name] != op.name:
            held[host[op.name]] += op.persistent_bytes
            followers[payer[host[op.name]]].append(op)
    kept = _read_later(graph, host)
    made = {t.name for op in graph.ops if host[op.name] == op.name for t in op.outputs}
    ops = []
    for op in graph.ops:
        if host[op.name] == op.name:
            outputs = tuple(_activation(t, kept, made) for t in op.outputs)
            charged = _charged(op, followers[op.name], held[op.name], seconds) if charge else op
            ops.append(replace(charged, outputs=outputs))
    return graph.with_ops(ops)


def follow(graph: Graph, device: Mapping[str, str]) -> dict[str, str]:
    """Devices of the whole step, from those of its forward ops.

    Args:
        graph: the graph that `forward_only` was given.
        device: device by name, for each op that `forward_only` returned.

    Raises:
        BaechiError: B209 when the graph has no forward op; B405 when a forward op has no device.
    """
    host = hosts(graph)
    for name in host.values():
        if name not in device:
            raise BaechiError("B405", f"forward op '{name}' has no device", help="place all of forward_only(graph)")
    return {op.name: device[host[op.name]] for op in graph.ops}


def hosts(graph: Graph) -> dict[str, str]:
    """By op, the forward op whose device it takes; a forward op is its own.

    An op takes after, in this order: a forward op of its colocation group, what another member of
    its group took after, its twin, the maker of the largest of its inputs, and an op that reads it.

    Raises:
        BaechiError: B209 when the graph has no forward op.
    """
    order = [graph.ops[i] for i in graph.order]
    host = _forward(graph, order)
    if not host:
        raise BaechiError("B209", "the graph has no forward op to place")
    group = {graph.group_of(op): op.name for op in reversed(graph.ops) if op.name in host}

    def settle(op: Op, found: str | None) -> None:
        if op.name not in host and (choice := group.get(graph.group_of(op), found)) is not None:
            host[op.name] = choice
            group.setdefault(graph.group_of(op), choice)

    for op in order:
        settle(op, host.get(op.forward or "") or _from_inputs(graph, op, host))
    for op in reversed(order):
        settle(op, _from_readers(graph, op, host))
    for op in order:
        settle(op, _from_inputs(graph, op, host) or next(iter(host)))
    return {op.name: host[op.name] for op in graph.ops}


def _forward(graph: Graph, order: Sequence[Op]) -> dict[str, str]:
    """Forward ops that wait for forward ops only, each as its own host."""
    host: dict[str, str] = {}
    for op in order:
        sources = [*(graph.producer[name].name for name in op.inputs), *op.after]
        if op.phase == "forward" and all(name in host for name in sources):
            host[op.name] = op.name
    return host


def _from_inputs(graph: Graph, op: Op, host: Mapping[str, str]) -> str | None:
    known = [graph.tensor[name] for name in op.inputs if graph.producer[name].name in host]
    if known:
        return host[graph.producer[max(known, key=lambda t: t.nbytes).name].name]
    return next((host[name] for name in op.after if name in host), None)


def _from_readers(graph: Graph, op: Op, host: Mapping[str, str]) -> str | None:
    readers = (reader.name for t in op.outputs for reader in graph.readers[t.name])
    return next((host[name] for name in readers if name in host), None)


def _read_later(graph: Graph, host: Mapping[str, str]) -> set[str]:
    """Tensors of forward ops that a later phase reads, and those whose memory they lie in."""
    bases = storage(graph)
    later = [name for op in graph.ops if host[op.name] != op.name for name in op.inputs]
    return {*later, *(bases[name] for name in later)}


def _activation(tensor: Tensor, kept: set[str], made: set[str]) -> Tensor:
    alias_of = tensor.alias_of if tensor.alias_of in made else None
    return replace(tensor, keep=tensor.keep or tensor.name in kept, alias_of=alias_of)


def _payers(graph: Graph, host: Mapping[str, str]) -> dict[str, str]:
    """By forward op, the one that the time of its followers is charged to.

    Itself, but for what is there before the step begins, and views of that: readers would wait for it.
    """
    forward = [graph.ops[i] for i in graph.order if host[graph.ops[i].name] == graph.ops[i].name]
    early: set[str] = set()
    for op in forward:
        views = bool(op.inputs) and all(t.alias_of is not None for t in op.outputs)
        if op.kind in _STATE or (views and all(graph.producer[name].name in early for name in op.inputs)):
            early.add(op.name)
    payer: dict[str, str] = {}
    for op in reversed(forward):
        readers = [r.name for t in op.outputs for r in graph.readers[t.name] if r.name in payer]
        payer[op.name] = payer[readers[0]] if op.name in early and readers else op.name
    return payer


def _charged(op: Op, followers: Sequence[Op], held: int, seconds: Seconds | None) -> Op:
    op = replace(op, persistent_bytes=op.persistent_bytes + held)
    if not followers:
        return op if seconds is None else replace(op, seconds=seconds(op))
    everyone = [op, *followers]
    return replace(
        op,
        flops=sum(o.flops for o in everyone),
        moved_bytes=sum(o.moved_bytes for o in everyone),
        temp_bytes=max(op.temp_bytes, *(_working_bytes(o) for o in followers)),
        seconds=_total_seconds(everyone, seconds),
        key="",  # a measured time under the op's own key would leave its followers out
    )


def _working_bytes(op: Op) -> int:
    return op.temp_bytes + sum(t.nbytes - t.held for t in op.outputs if t.alias_of is None)


def _total_seconds(ops: Sequence[Op], seconds: Seconds | None) -> float | None:
    if seconds is not None:
        return sum(seconds(op) for op in ops)
    declared = [op.seconds for op in ops if op.seconds is not None]
    return sum(declared) if len(declared) == len(ops) else None
