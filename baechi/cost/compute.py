"""Time of one op on one device: declared, measured, or by the roofline."""

import numpy as np
from numpy.typing import NDArray

from baechi.cost.table import CostTable
from baechi.ir.cluster import Device
from baechi.ir.graph import Graph
from baechi.ir.op import Op

__all__ = ["graph_seconds", "op_seconds", "roofline_seconds"]


def op_seconds(op: Op, device: Device, table: CostTable | None = None) -> float:
    """Time of `op` on `device`, in seconds.

    The first that is known: the op's declared time over the device's speed, a time measured on
    devices of this type, the roofline. A device that works in host memory takes `Op.host_seconds` where declared.

    Example:
        >>> op_seconds(Op("a", "mm", seconds=2.0), Device("d", 1, speed=4.0))
        0.5
    """
    declared = op.host_seconds if device.in_host_memory and op.host_seconds is not None else op.seconds
    if declared is not None:
        return declared / device.speed
    if table is not None and op.key:
        measured = table.get(device.type, op.key)
        if measured is not None:
            return measured
    return roofline_seconds(op, device)


def roofline_seconds(op: Op, device: Device) -> float:
    """Launch overhead plus the larger of arithmetic and memory traffic at the device's rates.

    An op that neither computes nor moves anything (a parameter, a view) takes no time. A kind of
    arithmetic that the device does not name runs at its float32 rate. What is offloaded or fetched back
    goes over the link to the host, and the device computes nothing meanwhile.

    Source: Williams, Waterman, Patterson, "Roofline" (CACM 2009).

    Example:
        >>> gpu = Device("d", 1, flops_per_second={"float32": 1e12}, bytes_per_second=1e11, launch_seconds=1e-6)
        >>> roofline_seconds(Op("a", "mm", flops=2e9, moved_bytes=10**7), gpu)
        0.002001
    """
    if op.flops == 0 and op.moved_bytes == 0:
        return 0.0
    arithmetic = op.flops / (_rate(device, op.arithmetic) * device.efficiency)
    traffic = op.moved_bytes / device.bytes_per_second
    if op.kind in ("offload", "fetch") and device.host_bytes_per_second > 0:  # read on one side, written on the other
        traffic = max(traffic, op.moved_bytes / 2 / device.host_bytes_per_second)
    return device.launch_seconds + max(arithmetic, traffic)


def graph_seconds(graph: Graph, device: Device, table: CostTable | None = None) -> NDArray[np.float64]:
    """(ops,) `op_seconds` of every op of a graph, all at once."""
    c = graph.columns
    on_host = device.in_host_memory & ~np.isnan(c.host_seconds)
    seconds = np.where(on_host, c.host_seconds, c.seconds) / device.speed
    open_ops = np.flatnonzero(np.isnan(seconds))
    if len(open_ops) == 0:
        return seconds
    rate = {kind: _rate(device, kind) for kind in {op.arithmetic for op in graph.ops}}
    rates = np.array([rate[graph.ops[i].arithmetic] for i in open_ops.tolist()])
    flops, moved = c.flops[open_ops], c.moved_bytes[open_ops]
    roofline = device.launch_seconds + np.maximum(flops / (rates * device.efficiency), moved / device.bytes_per_second)
    seconds[open_ops] = np.where((flops == 0) & (moved == 0), 0.0, roofline)
    measured = {} if table is None else table.seconds.get(device.type, {})
    for i in open_ops.tolist() if measured else ():
        key = graph.ops[i].key
        if key and key in measured:
            seconds[i] = measured[key]
    return seconds


def _rate(device: Device, arithmetic: str) -> float:
    rates = device.flops_per_second
    return rates.get(arithmetic) or rates.get("float32") or max(rates.values(), default=float("inf"))
