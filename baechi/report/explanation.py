"""Why a plan takes as long, and as much memory, as it does."""

from collections.abc import Iterator
from dataclasses import dataclass

from baechi.ir.graph import Graph
from baechi.ir.op import Op
from baechi.ir.plan import Plan
from baechi.ir.timeline import OpSpan, Timeline, TransferSpan
from baechi.report.layout import percent
from baechi.sim import critical_path
from baechi.sim.holders import Peak, peak_of
from baechi.sim.lifetimes import Holder
from baechi.units import format_seconds

__all__ = ["CATEGORIES", "Categories", "Explanation", "Path", "Share", "explain", "held_by_module", "sentence"]

CATEGORIES = (
    "parameters",
    "optimiser state",
    "buffers",
    "inputs",
    "activations",
    "activation gradients",
    "gradients",
    "received copies",
    "sent copies",
    "temporaries",
    "persistent",
)
_SOURCES = {
    "parameter": "parameters",
    "buffer": "buffers",
    "constant": "buffers",
    "input": "inputs",
    "tangent": "inputs",
}


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a sum.

    Attributes:
        name: of what.
        amount: seconds or bytes.
    """

    name: str
    amount: float


@dataclass(frozen=True, slots=True)
class Path:
    """The chain of ops and transfers that makes the step as long as it is.

    Attributes:
        compute: seconds of it by device.
        transfer: seconds of it that are transfers.
        waiting: seconds of it in which nothing that the next one waits for runs.
        ops: its ops, the longest first.
        transfers: its transfers, the longest first.
    """

    compute: tuple[Share, ...]
    transfer: float
    waiting: float
    ops: tuple[OpSpan, ...]
    transfers: tuple[TransferSpan, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What there is to say of a plan.

    Attributes:
        step_seconds: the step.
        path: its critical path.
        peaks: of each device, in the order of the cluster.
        busy_seconds: of each device.
        transfers: the largest transfers first.
    """

    step_seconds: float
    path: Path
    peaks: tuple[Peak, ...]
    busy_seconds: tuple[float, ...]
    transfers: tuple[TransferSpan, ...]


def explain(graph: Graph, plan: Plan, timeline: Timeline) -> Explanation:
    """Look into a plan.

    Args:
        graph: what it places.
        plan: the plan.
        timeline: what `simulate` gives for it.
    """
    names = [d.name for d in plan.cluster.devices]
    return Explanation(
        timeline.step_seconds,
        _path(graph, plan, timeline),
        tuple(peak_of(graph, plan, timeline, name) for name in names),
        tuple(timeline.busy_seconds.get(name, 0.0) for name in names),
        tuple(sorted(timeline.transfers, key=lambda s: (-s.nbytes, s.start - s.end))),
    )


def _path(graph: Graph, plan: Plan, timeline: Timeline) -> Path:
    spans = critical_path(graph, timeline)
    ops = [s for s in spans if isinstance(s, OpSpan) and s.end > s.start]
    transfers = [s for s in spans if isinstance(s, TransferSpan)]
    compute = dict.fromkeys((d.name for d in plan.cluster.devices), 0.0)
    for s in ops:
        compute[s.device] += s.end - s.start
    moving = sum(s.end - s.start for s in transfers)
    waiting = max(0.0, timeline.step_seconds - sum(compute.values()) - moving)
    return Path(
        tuple(Share(name, seconds) for name, seconds in compute.items()),
        moving,
        waiting if waiting > 1e-9 * timeline.step_seconds else 0.0,
        tuple(sorted(ops, key=lambda s: s.start - s.end)),
        tuple(sorted(transfers, key=lambda s: s.start - s.end)),
    )


class Categories:
    """Tells what kind of memory a holder is."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._gradients = _gradients(graph)

    def of(self, holder: Holder) -> Iterator[Share]:
        """One kind, or two: a parameter's op holds its optimiser state too."""
        op = self._graph.op[holder.op]
        if holder.kind == "copy":
            yield Share("received copies", holder.nbytes)
        elif holder.kind == "packed":
            yield Share("sent copies", holder.nbytes)
        elif holder.kind == "temporary":
            yield Share("temporaries", holder.nbytes)
        elif holder.kind == "tensor":
            yield Share(self._made(op, holder.tensor), holder.nbytes)
        else:
            kind = _SOURCES.get(op.kind, "persistent")
            own = min(holder.nbytes, sum(t.held for t in op.outputs)) if kind == "parameters" else holder.nbytes
            yield Share(kind, own)
            yield Share("optimiser state", holder.nbytes - own)

    def _made(self, op: Op, tensor: str) -> str:
        if op.phase == "forward":
            return "activations"
        return "gradients" if tensor in self._gradients else "activation gradients"

    def sums(self, peak: Peak) -> tuple[Share, ...]:
        """Bytes at a peak by kind of memory, in the order of `CATEGORIES`."""
        total = dict.fromkeys(CATEGORIES, 0.0)
        for holder in peak.holders:
            for share in self.of(holder):
                total[share.name] += share.amount
        return tuple(Share(name, amount) for name, amount in total.items() if amount)


def _gradients(graph: Graph) -> frozenset[str]:
    """Storages of the gradients of parameters: what the backward pass leaves to the updates, or to the end."""
    read = [t for op in graph.ops if op.phase == "update" for t in op.inputs]
    kept = [t.name for op in graph.ops for t in op.outputs if t.keep]
    return frozenset(graph.tensor[t].alias_of or t for t in (*read, *kept) if graph.producer[t].phase == "backward")


def held_by_module(graph: Graph, peak: Peak) -> tuple[Share, ...]:
    """Bytes at a peak by the module that they belong to, the most first; by op where there are no modules."""
    sums: dict[str, float] = {}
    for holder in peak.holders:
        name = _owner(graph, graph.op[holder.op])
        sums[name] = sums.get(name, 0.0) + holder.nbytes
    return tuple(sorted((Share(n, b) for n, b in sums.items()), key=lambda s: (-s.amount, s.name)))


def _owner(graph: Graph, op: Op) -> str:
    """The module of an op; that of its first reader for a parameter, which is made by no module's code."""
    if op.module:
        return op.module
    for tensor in op.outputs:
        for reader in graph.readers[tensor.name]:
            if reader.module:
                return reader.module
    return op.name


def sentence(plan: Plan, explanation: Explanation) -> str:
    """The one thing to know of a plan."""
    step, path = explanation.step_seconds, explanation.path
    parts = [f"A step takes {format_seconds(step)}"]
    if plan.bounds.step_seconds > 0:
        gap = step / plan.bounds.step_seconds - 1
        near = "as short as any plan's can be" if gap < 5e-4 else f"{percent(gap)} above the lower bound"
        parts.append(f"{near}, which the {plan.bounds.best} sets")
    text = ", ".join(parts)
    if step > 0:
        computing = sum(s.amount for s in path.compute) / step
        text += f"; {percent(computing)} of its critical path is computing, {percent(path.transfer / step)} transfers"
        text += f", {percent(path.waiting / step)} waiting" if path.waiting else ""
    return text + "."
