"""What can be said of a graph, a plan and its timeline, as numbers."""

from collections import Counter
from dataclasses import dataclass, replace

from baechi.cost import CostTable, Problem
from baechi.errors import Infeasible
from baechi.ir.cluster import UNLIMITED_BYTES, Cluster
from baechi.ir.graph import Graph
from baechi.ir.op import PHASES, Op
from baechi.ir.timeline import Timeline
from baechi.placers import get_placer, make_plan

__all__ = [
    "Lighter",
    "OneDevice",
    "Traffic",
    "costs_time",
    "count_ops",
    "lighter_of",
    "one_device",
    "parameter_count",
    "traffic_of",
]


@dataclass(frozen=True, slots=True)
class OneDevice:
    """The whole step on the fastest of the devices, its cap left aside.

    Attributes:
        device: which one.
        step_seconds: its time.
        peak_bytes: its memory.
        fits: whether one of the devices could hold it.
    """

    device: str
    step_seconds: float
    peak_bytes: int
    fits: bool


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one device sends to another in a step."""

    source: str
    destination: str
    transfers: int
    nbytes: int
    seconds: float


def costs_time(op: Op) -> bool:
    """Whether an op computes or moves anything: parameters, inputs and views do not."""
    return bool(op.seconds) if op.seconds is not None else bool(op.flops or op.moved_bytes)


def count_ops(graph: Graph) -> dict[str, int]:
    """Numbers of ops: all, those that take time, and by phase."""
    phases = Counter(op.phase for op in graph.ops)
    return {"ops": len(graph), "compute": sum(map(costs_time, graph.ops)), **{p: phases[p] for p in PHASES}}


@dataclass(frozen=True, slots=True)
class Lighter:
    """What a step does to need less memory.

    Attributes:
        recomputed: ops that run a second time and compute something.
        recompute_seconds: their time.
        offloaded: tensors that wait in the memory of the host.
        offloaded_bytes: their size.
        offload_seconds: the time of both their ways.
    """

    recomputed: int
    recompute_seconds: float
    offloaded: int
    offloaded_bytes: int
    offload_seconds: float


def lighter_of(graph: Graph, timeline: Timeline) -> Lighter | None:
    """What of a step is recomputed and offloaded; None when nothing is."""
    seconds = {span.op: span.end - span.start for span in timeline.ops}
    again = [op for op in graph.ops if op.phase == "backward" and op.name == f"{op.forward}.again" and costs_time(op)]
    away = [op for op in graph.ops if op.kind == "offload"]
    ways = [op for op in graph.ops if op.kind in ("offload", "fetch")]
    if not (again or away):
        return None
    return Lighter(
        len(again),
        sum(seconds[op.name] for op in again),
        len(away),
        sum(t.nbytes for op in away for t in op.outputs),
        sum(seconds[op.name] for op in ways),
    )


def parameter_count(graph: Graph) -> int:
    """Elements of all parameters; 0 for a graph that does not tell parameters apart."""
    count = 0
    for op in graph.ops:
        if op.kind == "parameter":
            for tensor in op.outputs:
                elements = 1
                for n in tensor.shape:
                    elements *= n
                count += elements
    return count


def one_device(graph: Graph, cluster: Cluster, table: CostTable | None = None) -> OneDevice:
    """The step on one device of the cluster; see `OneDevice`."""
    unlimited = replace(cluster, devices=tuple(replace(d, memory_bytes=UNLIMITED_BYTES) for d in cluster.devices))
    plan = make_plan(get_placer("single"), Problem(graph, unlimited, table), 0)
    used = next(iter(plan.device.values()), cluster.devices[0].name)
    peak = plan.predicted.peak_bytes[used]
    return OneDevice(used, plan.predicted.step_seconds, peak, _fits(graph, cluster, table))


def _fits(graph: Graph, cluster: Cluster, table: CostTable | None) -> bool:
    try:
        make_plan(get_placer("single"), Problem(graph, cluster, table), 0)
    except Infeasible:
        return False
    return True


def traffic_of(timeline: Timeline) -> tuple[Traffic, ...]:
    """What goes from device to device, the most bytes (then the most seconds) first."""
    sums: dict[tuple[str, str], list[float]] = {}
    for span in timeline.transfers:
        row = sums.setdefault((span.source, span.destination), [0, 0, 0.0])
        row[0] += 1
        row[1] += span.nbytes
        row[2] += span.end - span.start
    found = [Traffic(s, d, int(n), int(b), t) for (s, d), (n, b, t) in sums.items()]
    return tuple(sorted(found, key=lambda t: (-t.nbytes, -t.seconds, t.source, t.destination)))
