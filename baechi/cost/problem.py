"""The placement problem as flat arrays: what the compiled loops of placers and simulator read."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from baechi.cost.compute import graph_seconds
from baechi.cost.table import CostTable
from baechi.cost.tensors import LINK, MOST_TICKS, TOKEN, Ints, buckets, tensor_arrays, token_ops, too_large, whole
from baechi.errors import BaechiError
from baechi.ir.cluster import CONTENTIONS, Cluster, Device
from baechi.ir.graph import Graph
from baechi.ir.plan import OBJECTIVES, Objective
from baechi.units import TICKS_PER_SECOND

__all__ = [
    "DUPLEX",
    "LATENCY",
    "LINK",
    "PARALLEL",
    "SEQUENTIAL",
    "THROUGHPUT",
    "TOKEN",
    "UNLIMITED_CORES",
    "Arrays",
    "Ints",
    "Problem",
    "group_labels",
]

UNLIMITED_CORES = 1 << 30
"""In `Arrays.cores`: devices of this host never slow each other down."""

SEQUENTIAL, DUPLEX, PARALLEL = range(3)
LATENCY, THROUGHPUT = range(2)


class Arrays(NamedTuple):
    """Ops, tensors and devices by index; times in ticks, sizes in bytes.

    Ops are numbered in program order. Tensors are numbered by the op that makes them, so that op
    ``i`` makes tensors ``out_ptr[i]`` up to ``out_ptr[i + 1]``; an op with a control dependent
    makes one more, its token.

    Attributes:
        ticks: (ops, devices) time of each op on each device.
        persistent: (ops,) bytes held through the whole step.
        temp: (ops,) bytes held while it runs.
        rank, order: (ops,) position in topological order, and its inverse.
        group: (ops,) colocation group.
        group_ptr, group_op: ops of each group.
        out_ptr, t_op: tensors of each op, op of each tensor.
        t_bytes: (tensors,) what a transfer moves and a received copy takes.
        t_size: (tensors,) what it takes where it is made, beyond what is persistent.
        t_base: (tensors,) the input of its op whose storage it shares, or -1.
        t_packed: (tensors,) what each transfer of it takes where it is made: a dense copy, when it has none.
        t_keep: (tensors,) whether it lives until the step ends.
        t_ticks: (tensors,) declared time of one transfer, or `LINK`, or `TOKEN`.
        in_ptr, in_t: tensors that each op reads, tokens included.
        rd_ptr, rd_op: ops that read each tensor.
        latency, ticks_per_byte: (devices, devices) of the link from row to column.
        cap: (devices,) memory.
        contention: index into `CONTENTIONS`.
        host, threads: (devices,) host of each device, and how many of its cores an op takes.
        cores: (hosts,) cores that the host's devices share.
        pays: (devices,) 1, or 0 of a device that works in host memory: whether transfers take its time and copy lanes.
        objective: index into `OBJECTIVES`.
    """

    ticks: Ints
    persistent: Ints
    temp: Ints
    rank: Ints
    order: Ints
    group: Ints
    group_ptr: Ints
    group_op: Ints
    out_ptr: Ints
    t_op: Ints
    t_bytes: Ints
    t_size: Ints
    t_base: Ints
    t_packed: Ints
    t_keep: Ints
    t_ticks: Ints
    in_ptr: Ints
    in_t: Ints
    rd_ptr: Ints
    rd_op: Ints
    latency: Ints
    ticks_per_byte: NDArray[np.float64]
    cap: Ints
    contention: int
    host: Ints
    threads: Ints
    cores: Ints
    pays: Ints
    objective: int


@dataclass(frozen=True, eq=False)
class Problem:
    """A graph on a cluster, in arrays that are built once.

    Args:
        graph: the training step.
        cluster: the devices.
        table: measured op times.
        objective: ``latency``, the makespan of one step, or ``throughput``, the highest load of a
            device, which is the time for each step when many follow each other in a pipeline.

    Raises:
        BaechiError: B302 when a time is no number or times are too long to be added up.
    """

    graph: Graph
    cluster: Cluster
    table: CostTable | None = None
    objective: Objective = "latency"

    @cached_property
    def arrays(self) -> Arrays:
        """The flat form."""
        ends = (*_cluster_arrays(self.cluster), OBJECTIVES.index(self.objective))
        columns: tuple[Any, ...] = (*_op_arrays(self), *tensor_arrays(self.graph), *ends)
        arrays = Arrays(*columns)
        _check_sizes(arrays)
        return arrays

    def with_caps(self, caps: Ints) -> "Problem":
        """The same problem under other memory caps; all other arrays are shared."""
        return self.with_arrays(self.arrays._replace(cap=caps))

    def with_groups(self, group: Ints) -> "Problem":
        """The same problem with other colocation groups; all other arrays are shared."""
        number, ptr, members = _groups(group)
        return self.with_arrays(self.arrays._replace(group=number, group_ptr=ptr, group_op=members))

    def on_devices(self, cluster: Cluster, devices: Ints) -> "Problem":
        """The same step on a part of its cluster.

        Args:
            cluster: the devices that are left, perhaps with other memory.
            devices: their indices in this problem's cluster, in the same order.
        """
        a, apart = self.arrays, np.ix_(devices, devices)
        part = Problem(self.graph, cluster, self.table, self.objective)
        part.__dict__["arrays"] = a._replace(
            ticks=np.ascontiguousarray(a.ticks[:, devices]),
            latency=a.latency[apart],
            ticks_per_byte=a.ticks_per_byte[apart],
            cap=np.array([device.cap for device in cluster.devices], np.int64),
            host=a.host[devices],
            threads=a.threads[devices],
            pays=a.pays[devices],
        )
        return part

    def with_arrays(self, arrays: Arrays) -> "Problem":
        """A problem that stands in for this one, such as a part of its graph; only its arrays count."""
        other = Problem(self.graph, self.cluster, self.table, self.objective)
        other.__dict__["arrays"] = arrays
        return other

    @cached_property
    def tensor_names(self) -> list[str]:
        """Name of each tensor; a token's is empty."""
        tokens = token_ops(self.graph.columns)
        if not tokens.any():
            return list(self.graph.number)
        names: list[str] = []
        for op, token in zip(self.graph.ops, tokens.tolist(), strict=True):
            names += [t.name for t in op.outputs]
            if token:
                names.append("")
        return names


def _check_sizes(arrays: Arrays) -> None:
    """Sums of times, and of bytes with all tensors on all devices, must be countable in 64 bits."""
    longest = arrays.ticks.max(axis=1).sum(dtype=np.float64) + _transfer_ticks(arrays)
    made = arrays.t_bytes.sum(dtype=np.float64) * len(arrays.cap)
    if longest > MOST_TICKS or made + (arrays.persistent + arrays.temp.astype(np.float64)).sum() > MOST_TICKS:
        raise too_large()


def _op_arrays(problem: Problem) -> tuple[Ints, ...]:
    c = problem.graph.columns
    order = np.asarray(problem.graph.order, np.int64)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return (
        _ticks(problem),
        whole(c.persistent_bytes),
        whole(c.temp_bytes),
        rank,
        order,
        *_groups(group_labels(problem.graph)),
    )


def group_labels(graph: Graph) -> Ints:
    """The first op of the colocation group of each op; an op without a group is a group of its own."""
    labels = np.arange(len(graph))
    first: dict[str, int] = {}
    for i, group in enumerate([op.group for op in graph.ops]):
        if group:
            labels[i] = first.setdefault(group, i)
    return labels


def _ticks(problem: Problem) -> Ints:
    columns: dict[object, Ints] = {}
    ticks = np.empty((len(problem.graph), len(problem.cluster)), np.int64)
    for k, device in enumerate(problem.cluster.devices):
        kind = _kind(device)
        if kind not in columns:
            columns[kind] = _to_ticks(graph_seconds(problem.graph, device, problem.table))
        ticks[:, k] = columns[kind]
    return ticks


def _kind(device: Device) -> object:
    """Devices of one kind run every op equally fast."""
    rates = tuple(sorted(device.flops_per_second.items()))
    memory = (device.bytes_per_second, device.host_bytes_per_second)
    return (device.type, rates, memory, device.launch_seconds, device.efficiency, device.speed, device.in_host_memory)


def _to_ticks(seconds: Sequence[float] | NDArray[np.float64]) -> Ints:
    values = np.asarray(seconds, np.float64)
    if not (np.isfinite(values).all() and (values >= 0).all() and values.sum() * TICKS_PER_SECOND <= MOST_TICKS):
        worst = values[~(np.isfinite(values) & (values >= 0))]
        what = f"{worst[0]} is not a time" if len(worst) else "the step takes longer than 4e6 s"
        raise BaechiError("B302", what, help="a cost is a finite number of seconds, at least 0")
    return np.rint(values * TICKS_PER_SECOND).astype(np.int64)


def _groups(labels: Ints) -> tuple[Ints, Ints, Ints]:
    """Labels as numbers without gaps, in the order of the labels, and the ops of each."""
    if len(labels) and labels.min() >= 0 and labels.max() < 2 * len(labels):
        there = np.zeros(int(labels.max()) + 1, np.int64)
        there[labels] = 1
        number = (np.cumsum(there) - 1)[labels]
    else:
        number = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    return number, *buckets(number, int(number.max()) + 1 if len(number) else 0)


def _cluster_arrays(cluster: Cluster) -> tuple[Any, ...]:
    devices = cluster.devices
    links = [[cluster.link_between(a.name, b.name) for b in devices] for a in devices]
    latency = np.array([_to_ticks([link.latency_seconds for link in row]) for row in links])
    per_byte = np.array([[TICKS_PER_SECOND / link.bytes_per_second for link in row] for row in links])
    hosts = list(dict.fromkeys(d.host for d in devices))
    return (
        latency,
        per_byte,
        np.array([d.cap for d in devices], np.int64),
        CONTENTIONS.index(cluster.contention),
        np.array([hosts.index(d.host) for d in devices], np.int64),
        np.array([d.threads for d in devices], np.int64),
        np.array([cluster.cores.get(h, UNLIMITED_CORES) for h in hosts], np.int64),
        np.array([not d.in_host_memory for d in devices], np.int64),
    )


def _transfer_ticks(a: Arrays) -> float:
    """All transfers to all devices, one after the other, at the worst link."""
    slowest = np.where(a.t_ticks == LINK, a.latency.max() + a.t_bytes * a.ticks_per_byte.max(), a.t_ticks)
    return float(np.maximum(slowest, 0).sum() * len(a.cap))
