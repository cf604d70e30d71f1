"""How long each storage of a device lives: what makes it, who reads it there, and where it is sent."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from baechi.ir.graph import Graph
from baechi.ir.timeline import Timeline, TransferSpan

__all__ = ["Holder", "Lifetime", "lifetimes"]

HolderKind = Literal["persistent", "tensor", "copy", "packed", "temporary"]


@dataclass(frozen=True, slots=True)
class Holder:
    """Bytes that are live at a peak.

    Attributes:
        kind: what persists through all steps; a tensor where it is made; a received copy; a copy that
            is sent in place of a scattered tensor; what an op needs only while it runs.
        op: which op has it, or made the tensor.
        tensor: the tensor; empty for what persists and what is temporary.
        nbytes: how much.
    """

    kind: HolderKind
    op: str
    tensor: str
    nbytes: int


class Lifetime(NamedTuple):
    """Memory of a device that lives from an event until the last of others.

    Attributes:
        holder: what it is, and how large.
        maker: the op that makes it here, or the transfer that brings it.
        readers: the ops of the device that hold it, its maker included.
        sent: the transfers out of it.
        keep: whether it stays until the step ends.
    """

    holder: Holder
    maker: str | TransferSpan
    readers: tuple[str, ...]
    sent: tuple[TransferSpan, ...]
    keep: bool


def lifetimes(graph: Graph, order: Sequence[str], timeline: Timeline, device: str) -> Iterator[Lifetime]:
    """Everything that ever takes memory on a device, besides what persists and what is temporary."""
    here = frozenset(order)
    arrival = {s.tensor: s for s in timeline.transfers if s.destination == device}
    leaving: dict[str, list[TransferSpan]] = {}
    for span in timeline.transfers:
        if span.source == device:
            leaving.setdefault(span.tensor, []).append(span)
    root = _roots(graph, here)
    tensors: dict[str, list[str]] = {}
    for tensor, owner in root.items():
        tensors.setdefault(owner, []).append(tensor)
    for name, members in tensors.items():
        base, maker = graph.tensor[name], graph.producer[name]
        made = [t for t in members if graph.producer[t].name in here]
        readers = (op.name for t in members for op in graph.readers[t] if op.name in here)
        holding = tuple(dict.fromkeys([*(graph.producer[t].name for t in made), *readers]))
        packed = [(t, span) for t in made if graph.tensor[t].packed_bytes for span in leaving.get(t, ())]
        sent = tuple(span for t in made if not graph.tensor[t].packed_bytes for span in leaving.get(t, ()))
        keep = any(graph.tensor[t].keep for t in made)
        if maker.name not in here:
            yield Lifetime(Holder("copy", maker.name, name, base.nbytes), arrival[name], holding, sent, keep)
        elif base.nbytes > base.held:
            size = base.nbytes - base.held
            yield Lifetime(Holder("tensor", maker.name, name, size), maker.name, holding, sent, keep)
        for tensor, span in packed:
            op = graph.producer[tensor].name
            yield Lifetime(Holder("packed", op, tensor, span.nbytes), op, (op,), (span,), keep=False)


def _roots(graph: Graph, here: frozenset[str]) -> Mapping[str, str]:
    """For each tensor made or read here, the tensor whose storage it is in here: its own, that of
    what it is a view of, or that of a received copy."""
    storage: dict[str, str] = {}
    origin: dict[str, str] = {}
    for i in graph.order:
        op = graph.ops[i]
        if op.name in here:
            for name in op.inputs:
                storage.setdefault(name, name)  # made elsewhere: a copy
        for t in op.outputs:
            origin[t.name] = t.name if t.alias_of is None else origin.get(t.alias_of, t.alias_of)
            if op.name in here:
                base = next((u for u in op.inputs if origin[u] == origin[t.name]), None)
                storage[t.name] = t.name if t.alias_of is None or base is None else storage[base]
    return storage
