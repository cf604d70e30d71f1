"""A training graph for other eyes: text, Graphviz's DOT, and GraphML; op by op, or module by module."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import networkx as nx

from baechi.ir.graph import Graph
from baechi.ir.op import Op
from baechi.report.facts import count_ops, parameter_count
from baechi.report.layout import clip, table
from baechi.units import format_bytes, format_count

__all__ = ["Part", "by_module", "graph_dot", "graph_graphml", "graph_text", "module_of", "ops_of"]

_COLOURS = ("#8dd3c7", "#ffffb3", "#bebada", "#fb8072", "#80b1d3", "#fdb462", "#b3de69", "#fccde5", "#d9d9d9")
_MOST_DEVICES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Part:
    """A node of a graph that is shown: an op, or all ops of a module.

    Attributes:
        name: of the op, or the path of the module.
        kind: of the op; ``module``.
        ops: how many it stands for.
        flops, moved_bytes, persistent_bytes: of all of them.
        made_bytes: of the tensors that they make.
        devices: where they are, the most ops first; empty without a plan.
    """

    name: str
    kind: str
    ops: int
    flops: float
    moved_bytes: int
    persistent_bytes: int
    made_bytes: int
    devices: tuple[str, ...] = ()


def ops_of(graph: Graph, device: Mapping[str, str] | None = None) -> "nx.DiGraph[str]":
    """Each op a node with a `Part` as ``part``; edges carry ``nbytes``, and ``after`` where no tensor flows."""
    return _drawn(graph, {op.name: op.name for op in graph.ops}, {op.name: op.kind for op in graph.ops}, device)


def by_module(graph: Graph, depth: int, device: Mapping[str, str] | None = None) -> "nx.DiGraph[str]":
    """Each module a node, paths cut after so many names; what lies in none is called after its kind.

    Forward and backward pass of a module are one node, so edges go both ways.

    Example:
        >>> graph = Graph((Op("a", "relu", module="encoder.layers.0"), Op("b", "relu", module="encoder.layers.1")))
        >>> list(by_module(graph, 2))
        ['encoder.layers']
    """
    inside = module_of(graph, depth)
    return _drawn(graph, inside, dict.fromkeys(inside.values(), "module"), device)


def module_of(graph: Graph, depth: int) -> dict[str, str]:
    """The node of `by_module` that each op is in, by the op's name."""
    return {op.name: ".".join(op.path.split(".")[:depth]) or f"({op.kind})" for op in graph.ops}


def _drawn(
    graph: Graph, inside: Mapping[str, str], kind: Mapping[str, str], device: Mapping[str, str] | None
) -> "nx.DiGraph[str]":
    members: dict[str, list[Op]] = {}
    for op in graph.ops:
        members.setdefault(inside[op.name], []).append(op)
    drawn: nx.DiGraph[str] = nx.DiGraph(name=graph.name)
    for name, ops in members.items():
        drawn.add_node(name, part=_part(name, kind[name], ops, device))
    for op in graph.ops:
        here = inside[op.name]
        for tensor in op.inputs:
            _join(drawn, inside[graph.producer[tensor].name], here, graph.tensor[tensor].nbytes)
        for other in op.after:
            _join(drawn, inside[other], here, 0)
    return drawn


def _join(drawn: "nx.DiGraph[str]", source: str, to: str, nbytes: int) -> None:
    if source != to:
        before = drawn.edges[source, to]["nbytes"] if drawn.has_edge(source, to) else 0
        drawn.add_edge(source, to, nbytes=before + nbytes)


def _part(name: str, kind: str, ops: list[Op], device: Mapping[str, str] | None) -> Part:
    counts = Counter(device[op.name] for op in ops) if device is not None else Counter[str]()
    return Part(
        name,
        kind,
        len(ops),
        sum(op.flops for op in ops),
        sum(op.moved_bytes for op in ops),
        sum(op.persistent_bytes for op in ops),
        sum(t.nbytes for op in ops for t in op.outputs if t.alias_of is None),
        tuple(sorted(counts, key=lambda d: (-counts[d], d))),
    )


def graph_text(graph: Graph, drawn: "nx.DiGraph[str]", width: int) -> str:
    """One line for each node in program order, under a line on the whole.

    Args:
        graph: the training graph.
        drawn: as of `ops_of` or `by_module`.
        width: of the first two columns.
    """
    counts, parameters = count_ops(graph), parameter_count(graph)
    weights = f", {format_count(parameters)} parameters" if parameters else ""
    phases = ", ".join(f"{counts[p]:,} {p}" for p in ("forward", "backward", "update") if counts[p])
    placed = any(data["part"].devices for _, data in drawn.nodes(data=True))
    rows = [("name", "kind", "ops", "FLOPs", "made", "held", "reads from", *(["device"] if placed else []))]
    for name, data in drawn.nodes(data=True):
        part: Part = data["part"]
        row = (clip(name, width), clip(part.kind, width), f"{part.ops:,}", format_count(part.flops))
        amounts = (format_bytes(part.made_bytes), format_bytes(part.persistent_bytes))
        where = [_where(part)] if placed else []
        rows.append((*row, *amounts, clip(", ".join(drawn.predecessors(name)), width), *where))
    shown = [f"{graph.name}: {counts['ops']:,} ops, {phases}{weights}; digest {graph.digest}", ""]
    return "\n".join([*shown, *table(rows, "<<>>>><<"[: len(rows[0])])]) + "\n"


def _where(part: Part) -> str:
    more = len(part.devices) - _MOST_DEVICES_SHOWN
    return ", ".join(part.devices[:_MOST_DEVICES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def graph_dot(drawn: "nx.DiGraph[str]") -> str:
    """Graphviz's language: nodes coloured by their device, edges labelled with what flows."""
    colour: dict[str, str] = {}
    lines = [f"digraph {_quoted(drawn.name)} {{", "  node [shape=box, style=filled, fillcolor=white];"]
    for name, data in drawn.nodes(data=True):
        part: Part = data["part"]
        device = part.devices[0] if part.devices else ""
        fill = f', fillcolor="{colour.setdefault(device, _COLOURS[len(colour) % len(_COLOURS)])}"' if device else ""
        what = part.kind if part.ops == 1 else f"{part.ops:,} ops"
        label = "\n".join(filter(None, (name, what, _where(part))))
        lines.append(f"  {_quoted(name)} [label={_quoted(label)}{fill}];")
    for source, to, data in drawn.edges(data=True):
        nbytes = data["nbytes"]
        label = f" [label={_quoted(format_bytes(nbytes))}]" if nbytes else " [style=dashed]"
        lines.append(f"  {_quoted(source)} -> {_quoted(to)}{label};")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def graph_graphml(drawn: "nx.DiGraph[str]") -> str:
    """GraphML, whose nodes and edges carry the same figures."""
    plain: nx.DiGraph[str] = nx.DiGraph(name=drawn.name)
    for name, data in drawn.nodes(data=True):
        plain.add_node(name, **dict(_attributes(data["part"])))
    plain.add_edges_from(drawn.edges(data=True))
    stream = io.BytesIO()
    nx.write_graphml(plain, stream)
    return stream.getvalue().decode("utf-8") + "\n"


def _attributes(part: Part) -> Iterator[tuple[str, str | int | float]]:
    yield "kind", part.kind
    yield "ops", part.ops
    yield "flops", float(part.flops)
    yield "moved_bytes", part.moved_bytes
    yield "persistent_bytes", part.persistent_bytes
    yield "made_bytes", part.made_bytes
    if part.devices:
        yield "device", part.devices[0]
