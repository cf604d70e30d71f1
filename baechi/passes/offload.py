"""Offloading: activations wait for the backward pass in the memory of the host."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from baechi.errors import BaechiError
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.passes.again import is_late, is_view, made_again, written
from baechi.passes.recompute import copy_of
from baechi.passes.storage import storage

__all__ = ["offload", "offloadable"]


def offload(graph: Graph, tensors: Iterable[str]) -> Graph:
    """Copy activations to the host behind their last forward reader, and back before their first backward reader.

    An ``offload`` op reads the tensor and makes ``<tensor>.host``, which takes no memory of the device; a
    ``fetch`` op of the same colocation group makes ``<tensor>.back`` of it, for the backward
    readers. Both take time of the device, as long as the bytes take over its link to the host: nothing
    runs beside them. Views of the tensor become views of what came back.

    Args:
        graph: a training step, recomputed already where that is wanted too.
        tensors: of forward ops; all must be `offloadable`.

    Raises:
        BaechiError: B213 when a tensor is not there or cannot be offloaded.

    Source: Rhu et al., "vDNN: Virtualized Deep Neural Networks" (MICRO 2016).

    Example:
        >>> a = Op("a", "tanh", (), (Tensor("x", 8),))
        >>> b = Op("b", "sum", ("x",), (Tensor("y", 4, keep=True),))
        >>> c = Op("c", "tanh_backward", ("x",), phase="backward")
        >>> [(op.name, op.inputs) for op in offload(Graph((a, b, c)), ["x"]).ops[2:]]
        [('x.offload', ('x',)), ('x.fetch', ('x.host',)), ('c', ('x.back',))]
    """
    known = offloadable(graph)
    early: dict[str, list[Op]] = {}
    late: list[Op] = []
    again: dict[str, str] = {}
    index = graph.index
    for name in dict.fromkeys(tensors):
        if name not in known:
            why = "cannot be offloaded" if name in graph.tensor else "is not there"
            raise BaechiError("B213", f"tensor '{name}' {why}", help="name activations that the backward pass reads")
        last = max(
            (index[r.name] for r in graph.readers[name] if r.phase == "forward"), default=index[known[name].name]
        )
        out, back = _pair(known[name], graph.tensor[name])
        early.setdefault(graph.ops[last].name, []).append(out)
        late.append(back)
        again[name] = back.outputs[0].name
    views = _views(graph, again)
    again |= {t.name: f"{t.name}.back" for op in views for t in op.outputs}
    late += [copy_of(graph, op, again, "back") for op in views]
    return made_again(graph, late, again, early)


def offloadable(graph: Graph) -> Mapping[str, Op]:
    """The tensors that may wait elsewhere for the backward pass, each with the op that makes it.

    Those of forward ops, with memory of their own that nothing writes to in place, that the backward pass
    reads, itself or by a view, and that are no results.
    """
    bases = storage(graph)
    late = {bases[name] for op in graph.ops if is_late(op) for name in op.inputs}
    stay = {bases[t.name] for op in graph.ops for t in op.outputs if t.keep} | written(graph)
    return {
        t.name: op
        for op in graph.ops
        if op.phase == "forward" and not op.persistent_bytes
        for t in op.outputs
        if t.name in late and t.name not in stay and t.nbytes > t.held == 0
    }


def _pair(maker: Op, tensor: Tensor) -> tuple[Op, Op]:
    name, key = tensor.name, f"{tensor.dtype}[{','.join(map(str, tensor.shape))}]"
    there = replace(tensor, name=f"{name}.host", held=tensor.nbytes, seconds=None)
    out = Op(
        f"{name}.offload",
        "offload",
        (name,),
        (there,),
        moved_bytes=2 * tensor.nbytes,
        arithmetic=tensor.dtype or maker.arithmetic,
        group=f"host:{name}",
        module=maker.module,
        source=maker.source,
        key=f"offload({key})",
        expert=maker.expert,
    )
    here = replace(tensor, name=f"{name}.back")
    back = replace(
        out,
        name=f"{name}.fetch",
        kind="fetch",
        inputs=(there.name,),
        outputs=(here,),
        phase="backward",
        forward=maker.name,
        key=f"fetch({key})",
    )
    return out, back


def _views(graph: Graph, away: Mapping[str, str]) -> list[Op]:
    """The views of offloaded tensors that the backward pass needs, in topological order."""
    bases = storage(graph)
    wanted = {name for op in graph.ops if is_late(op) for name in op.inputs}
    found: list[Op] = []
    for i in reversed(graph.order):
        op = graph.ops[i]
        if op.phase != "forward" or not is_view(op) or not all(bases[t.name] in away for t in op.outputs):
            continue
        if any(t.name in wanted for t in op.outputs):
            found.append(op)
            wanted.update(op.inputs)
    return found[::-1]
