"""The placement problem as flat arrays: what the compiled loops of placers and simulator read."""

from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from baechi.cost.compute import op_seconds
from baechi.cost.table import CostTable
from baechi.errors import BaechiError
from baechi.ir.cluster import CONTENTIONS, Cluster, Device
from baechi.ir.graph import Graph
from baechi.units import TICKS_PER_SECOND

__all__ = [
    "DUPLEX",
    "LINK",
    "PARALLEL",
    "SEQUENTIAL",
    "TOKEN",
    "UNLIMITED_CORES",
    "Arrays",
    "Ints",
    "Problem",
    "group_labels",
]

Ints = NDArray[Any]
"""An array of int64; its elements are left untyped, for compiled loops mix them with `int`."""

LINK = -1
"""In `Arrays.t_ticks`: the link says how long a transfer takes."""
TOKEN = -2
"""In `Arrays.t_ticks`: no tensor but a control dependency; it reaches every device at once."""

UNLIMITED_CORES = 1 << 30
"""In `Arrays.cores`: devices of this host never slow each other down."""

SEQUENTIAL, DUPLEX, PARALLEL = range(3)
_MOST_TICKS = 4e18


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
        t_keep: (tensors,) whether it lives until the step ends.
        t_ticks: (tensors,) declared time of one transfer, or `LINK`, or `TOKEN`.
        in_ptr, in_t: tensors that each op reads, tokens included.
        rd_ptr, rd_op: ops that read each tensor.
        latency, ticks_per_byte: (devices, devices) of the link from row to column.
        cap: (devices,) memory.
        contention: index into `CONTENTIONS`.
        host, cores: (devices,) host of each device; (hosts,) cores that its devices share.
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
    cores: Ints


@dataclass(frozen=True, eq=False)
class Problem:
    """A graph on a cluster, in arrays that are built once.

    Raises:
        BaechiError: B302 when a time is no number or times are too long to be added up.
    """

    graph: Graph
    cluster: Cluster
    table: CostTable | None = None

    @cached_property
    def arrays(self) -> Arrays:
        """The flat form."""
        columns: tuple[Any, ...] = (*_op_arrays(self), *_tensor_arrays(self), *_cluster_arrays(self.cluster))
        arrays = Arrays(*columns)
        _check_sizes(arrays)
        return arrays

    def with_caps(self, caps: Ints) -> "Problem":
        """The same problem under other memory caps; all other arrays are shared."""
        other = Problem(self.graph, self.cluster, self.table)
        other.__dict__["arrays"] = self.arrays._replace(cap=caps)
        return other

    def with_groups(self, group: Ints) -> "Problem":
        """The same problem with other colocation groups; all other arrays are shared."""
        other = Problem(self.graph, self.cluster, self.table)
        number, ptr, members = _groups(group)
        other.__dict__["arrays"] = self.arrays._replace(group=number, group_ptr=ptr, group_op=members)
        return other

    @cached_property
    def tensor_names(self) -> list[str]:
        """Name of each tensor; a token's is empty."""
        waited = _waited(self.graph)
        names: list[str] = []
        for op in self.graph.ops:
            names += [t.name for t in op.outputs]
            if op.name in waited:
                names.append("")
        return names


def _waited(graph: Graph) -> set[str]:
    return {name for op in graph.ops if op.after for name in op.after}


def _check_sizes(arrays: Arrays) -> None:
    """Sums of times, and of bytes with all tensors on all devices, must be countable in 64 bits."""
    longest = arrays.ticks.max(axis=1).sum(dtype=np.float64) + _transfer_ticks(arrays)
    made = arrays.t_bytes.sum(dtype=np.float64) * len(arrays.cap)
    if longest > _MOST_TICKS or made + (arrays.persistent + arrays.temp.astype(np.float64)).sum() > _MOST_TICKS:
        raise _too_large()


def _too_large() -> BaechiError:
    return BaechiError(
        "B302",
        "the step holds more than 4e18 bytes or takes longer than 4e6 s",
        help="are the units bytes and seconds?",
    )


def _op_arrays(problem: Problem) -> tuple[Ints, ...]:
    ops = problem.graph.ops
    rank = np.empty(len(ops), np.int64)
    order = np.asarray(problem.graph.order, np.int64)
    rank[order] = np.arange(len(ops))
    return (
        _ticks(problem),
        _whole([op.persistent_bytes for op in ops]),
        _whole([op.temp_bytes for op in ops]),
        rank,
        order,
        *_groups(group_labels(problem.graph)),
    )


def group_labels(graph: Graph) -> Ints:
    """A number for the colocation group of each op; an op without one is a group of its own."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(op.group or "\0" + op.name, len(numbers)) for op in graph.ops], np.int64)


def _ticks(problem: Problem) -> Ints:
    columns: dict[object, Ints] = {}
    for device in problem.cluster.devices:
        kind = _kind(device)
        if kind not in columns:
            columns[kind] = _to_ticks([op_seconds(op, device, problem.table) for op in problem.graph.ops])
    return np.column_stack([columns[_kind(d)] for d in problem.cluster.devices])


def _kind(device: Device) -> object:
    """Devices of one kind run every op equally fast."""
    rates = tuple(sorted(device.flops_per_second.items()))
    return (device.type, rates, device.bytes_per_second, device.launch_seconds, device.efficiency, device.speed)


def _to_ticks(seconds: list[float]) -> Ints:
    values = np.array(seconds, np.float64)
    if not (np.isfinite(values).all() and (values >= 0).all() and values.sum() * TICKS_PER_SECOND <= _MOST_TICKS):
        worst = values[~(np.isfinite(values) & (values >= 0))]
        what = f"{worst[0]} is not a time" if len(worst) else "the step takes longer than 4e6 s"
        raise BaechiError("B302", what, help="a cost is a finite number of seconds, at least 0")
    return np.rint(values * TICKS_PER_SECOND).astype(np.int64)


def _whole(values: list[Any]) -> Ints:
    try:
        return np.array(values, np.int64)
    except OverflowError:
        raise _too_large() from None


def _groups(labels: Ints) -> tuple[Ints, Ints, Ints]:
    _, number = np.unique(labels, return_inverse=True)
    return number.astype(np.int64), *_buckets(number, int(number.max()) + 1 if len(number) else 0)


def _buckets(key: Ints, count: int) -> tuple[Ints, Ints]:
    """Indices by key, each bucket in ascending order, as (pointers, indices)."""
    ptr = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(key, minlength=count), out=ptr[1:])
    return ptr, np.argsort(key, kind="stable").astype(np.int64)


def _tensor_arrays(problem: Problem) -> tuple[Ints, ...]:
    graph = problem.graph
    waited = _waited(graph)
    index: dict[str, int] = {}
    token: dict[str, int] = {}
    rows: list[tuple[int, int, int, int, int]] = []  # op, bytes, held, keep, ticks
    out_ptr = [0]
    for i, op in enumerate(graph.ops):
        for t in op.outputs:
            index[t.name] = len(rows)
            ticks = LINK if t.seconds is None else round(t.seconds * TICKS_PER_SECOND)
            rows.append((i, t.nbytes, t.held, t.keep, ticks))
        if op.name in waited:
            token[op.name] = len(rows)
            rows.append((i, 0, 0, False, TOKEN))
        out_ptr.append(len(rows))
    reads = [[index[name] for name in op.inputs] for op in graph.ops]
    for read, op in zip(reads, graph.ops, strict=True):
        if op.after:
            read += [token[name] for name in op.after]
    in_ptr = np.zeros(len(reads) + 1, np.int64)
    np.cumsum([len(r) for r in reads], out=in_ptr[1:])
    in_t = np.array(list(chain.from_iterable(reads)), np.int64)
    reader = np.repeat(np.arange(len(reads)), np.diff(in_ptr))
    rd_ptr, at = _buckets(in_t, len(rows))
    table = _whole(rows).reshape(-1, 5)
    t_base = np.full(len(rows), -1, np.int64)
    for name, base in _bases(graph).items():
        t_base[index[name]] = index[base]
    size = np.where(t_base >= 0, 0, np.maximum(table[:, 1] - table[:, 2], 0))
    return (
        np.array(out_ptr, np.int64),
        *(np.ascontiguousarray(column) for column in (table[:, 0], table[:, 1], size)),
        t_base,
        *(np.ascontiguousarray(column) for column in (table[:, 3], table[:, 4])),
        in_ptr,
        in_t,
        rd_ptr,
        reader[at].astype(np.int64),
    )


def _bases(graph: Graph) -> dict[str, str]:
    """For each view, the input of its op that it is a view of, however long the chain of views."""
    root: dict[str, str] = {}
    bases: dict[str, str] = {}
    if all(t.alias_of is None for op in graph.ops for t in op.outputs):
        return bases
    for i in graph.order:
        op = graph.ops[i]
        for t in op.outputs:
            root[t.name] = t.name if t.alias_of is None else root.get(t.alias_of, t.alias_of)
            if t.alias_of is not None:
                base = next((u for u in op.inputs if root[u] == root[t.name]), None)
                if base is not None:
                    bases[t.name] = base
    return bases


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
        np.array([cluster.cores.get(h, UNLIMITED_CORES) for h in hosts], np.int64),
    )


def _transfer_ticks(a: Arrays) -> float:
    """All transfers to all devices, one after the other, at the worst link."""
    slowest = np.where(a.t_ticks == LINK, a.latency.max() + a.t_bytes * a.ticks_per_byte.max(), a.t_ticks)
    return float(np.maximum(slowest, 0).sum() * len(a.cap))
