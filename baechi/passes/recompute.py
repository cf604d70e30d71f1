"""Recomputation: activations are made again for the backward pass instead of being kept for it."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from baechi.errors import BaechiError
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.passes.again import is_late, is_view, made_again, written
from baechi.passes.storage import storage

__all__ = ["copy_of", "recompute", "remade", "repeatable", "template"]

_STATE = ("buffer", "constant", "input", "parameter", "tangent")
_BY_MASK = {"aten.native_dropout": "aten.native_dropout_backward"}
"""Ops that multiply by what they draw, and their backward ops, which multiply by it too."""


def recompute(graph: Graph, names: Iterable[str]) -> Graph:
    """Make what some forward ops make again for its readers in the backward pass.

    Each op is copied as ``<name>.again``, with costs, colocation group and kind of the original, if
    anything of the backward pass needs it. What is read by copies and is not made by one is kept until then.
    Views of what is made again are made again too. A copy runs right before its first reader. Random
    numbers are drawn once: dropout keeps its mask, a byte an element, and multiplies by it again.

    Args:
        graph: a training step.
        names: of forward ops; all must be among the `repeatable`.

    Raises:
        BaechiError: B212 when an op is not there or cannot be run twice.

    Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost" (2016).

    Example:
        >>> a = Op("a", "input", outputs=(Tensor("x", 8, held=8),), persistent_bytes=8)
        >>> b = Op("b", "tanh", ("x",), (Tensor("y", 8),), flops=1.0)
        >>> c = Op("c", "sum", ("y",), (Tensor("z", 4, keep=True),), flops=1.0)
        >>> d = Op("d", "tanh_backward", ("y",), phase="backward", flops=1.0)
        >>> [(op.name, op.inputs) for op in recompute(Graph((a, b, c, d)), ["b"]).ops[3:]]
        [('b.again', ('x',)), ('d', ('y.again',))]
    """
    chosen = _chosen(graph, names)
    copies = _needed(graph, chosen)
    again = {t.name: f"{t.name}.again" for op in copies for t in remade(op)}
    return made_again(graph, [copy_of(graph, op, again) for op in copies], again)


def repeatable(graph: Graph) -> frozenset[str]:
    """The forward ops of which a second run gives the same again and changes nothing.

    Not so for what is there before the step, for what draws random numbers (except dropout, by its
    mask), for what writes in place or is written to, and for what an in-place write waits for.
    """
    awaited = {name for op in graph.ops if op.phase == "forward" and not op.draws for name in op.after}
    changed = {graph.producer[name].name for name in written(graph)}
    return frozenset(op.name for op in graph.ops if op.name not in awaited | changed and _runs_twice(graph, op))


def _runs_twice(graph: Graph, op: Op) -> bool:
    if op.phase != "forward" or op.kind in _STATE or op.persistent_bytes or not op.outputs:
        return False
    if any(t.held for t in op.outputs):
        return False
    if op.draws:
        return template(graph, op) is not op
    return not op.after and (is_view(op) or all(t.alias_of is None for t in op.outputs))


def template(graph: Graph, op: Op) -> Op:
    """The op whose call, on other inputs, makes what `op` makes once more: itself, or what applies its mask.

    Args:
        graph: the step without copies.
        op: one of its forward ops.
    """
    if not (op.draws and op.kind in _BY_MASK and len(op.outputs) > 1):
        return op
    readers = graph.readers[op.outputs[1].name]
    return next((r for r in readers if r.kind == _BY_MASK[op.kind] and len(r.inputs) == len(op.outputs)), op)


def _chosen(graph: Graph, names: Iterable[str]) -> dict[str, Op]:
    known = repeatable(graph)
    chosen: dict[str, Op] = {}
    for name in names:
        if name not in known:
            why = "cannot run twice" if name in graph.op else "is not there"
            raise BaechiError(
                "B212", f"op '{name}' {why}, so it is not recomputed", help="name forward ops of the step"
            )
        chosen[name] = graph.op[name]
    bases = storage(graph)
    for op in graph.ops:
        if is_view(op) and op.name in known and graph.producer[bases[op.outputs[0].name]].name in chosen:
            chosen[op.name] = op
    return chosen


def _needed(graph: Graph, chosen: dict[str, Op]) -> list[Op]:
    """Those of the chosen ops that something in the backward pass needs, in topological order."""
    wanted = {name for op in graph.ops if is_late(op) for name in op.inputs}
    needed: list[Op] = []
    for i in reversed(graph.order):
        op = graph.ops[i]
        if op.name in chosen and any(t.name in wanted for t in remade(op)):
            needed.append(op)
            wanted.update(op.inputs)
    return needed[::-1]


def remade(op: Op) -> tuple[Tensor, ...]:
    """What a copy makes: all, but for a mask that was drawn."""
    return op.outputs[:1] if op.draws else op.outputs


def copy_of(graph: Graph, op: Op, again: Mapping[str, str], suffix: str = "again") -> Op:
    """The copy of an op that reads the tensors of `again` in place of those that they stand for."""
    like = template(graph, op)
    inputs = (*op.inputs, *(t.name for t in op.outputs if t not in remade(op)))
    outputs = (
        replace(t, name=again[t.name], alias_of=t.alias_of and again.get(t.alias_of, t.alias_of), keep=False)
        for t in remade(op)
    )
    return replace(
        like,
        name=f"{op.name}.{suffix}",
        inputs=tuple(again.get(name, name) for name in inputs),
        outputs=tuple(outputs),
        after=(),
        phase="backward",
        group=op.group,
        module=op.module,
        source=op.source,
        forward=op.name,
        expert=op.expert,
    )
