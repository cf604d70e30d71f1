"""What a plan must satisfy, as small named rules; the verifier reports every violation."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from baechi.ir.graph import Graph
from baechi.ir.plan import Plan
from baechi.ir.waiting import first_stuck
from baechi.units import format_bytes

__all__ = ["RULES", "verify"]


def verify(graph: Graph, plan: Plan) -> tuple[str, ...]:
    """Check a plan against the graph that it places; no violation means that it can be carried out.

    Example:
        >>> from baechi.ir.cluster import Cluster, Device
        >>> from baechi.ir.op import Op
        >>> from baechi.placers import Single
        >>> graph = Graph((Op("a", "op", seconds=1.0),))
        >>> verify(graph, Single().place(graph, Cluster((Device("d", 8),))))
        ()
    """
    return tuple(f"{name}: {what}" for name, rule in RULES.items() for what in rule(graph, plan))


def _same_graph(graph: Graph, plan: Plan) -> Iterator[str]:
    if plan.graph != graph.digest:
        yield f"the plan is for graph {plan.graph}, this is {graph.digest}"


def _complete(graph: Graph, plan: Plan) -> Iterator[str]:
    if plan.device.keys() == graph.op.keys() and set(plan.device.values()) <= plan.cluster.device.keys():
        return
    for op in graph.ops:
        if op.name not in plan.device:
            yield f"op '{op.name}' has no device"
    for name, device in plan.device.items():
        if name not in graph.op:
            yield f"'{name}' is no op of the graph"
        if device not in plan.cluster.device:
            yield f"op '{name}' is on '{device}', which is no device of the cluster"


def _ordered_once(graph: Graph, plan: Plan) -> Iterator[str]:
    if _order_follows_device(plan):
        return
    ordered = Counter((name, device) for device, ops in plan.order.items() for name in ops)
    for (name, device), times in ordered.items():
        if times > 1 or plan.device.get(name) != device:
            yield f"op '{name}' is {times} times in the order of {device}, its device is {plan.device.get(name)}"
    for name, device in plan.device.items():
        if (name, device) not in ordered:
            yield f"op '{name}' is not in the order of {device}"


def _order_follows_device(plan: Plan) -> bool:
    """Whether each op is in the order of its device, once, and in no other."""
    ordered = [name for ops in plan.order.values() for name in ops]
    if len(ordered) != len(plan.device) or len(set(ordered)) != len(ordered):
        return False
    return all(set(map(plan.device.get, ops)) <= {device} for device, ops in plan.order.items())


def _together(graph: Graph, plan: Plan) -> Iterator[str]:
    groups: dict[str, set[str | None]] = {}
    for op in graph.ops:
        if op.group is not None:
            groups.setdefault(op.group, set()).add(plan.device.get(op.name))
    for name, devices in groups.items():
        if len(devices) > 1:
            yield f"group '{name}' is spread over {', '.join(sorted(map(str, devices)))}"


def _sent(graph: Graph, plan: Plan) -> Iterator[str]:
    if _needs_are_sent(graph, plan):
        return
    needed = dict.fromkeys(
        (name, plan.device.get(graph.producer[name].name), plan.device.get(op.name))
        for op in graph.ops
        for name in op.inputs
        if plan.device.get(graph.producer[name].name) != plan.device.get(op.name)
    )
    given = Counter(plan.transfers)
    for key in needed:
        if key not in given:
            yield f"'{key[0]}' is read on {key[2]} and never sent there from {key[1]}"
    for key, times in given.items():
        if times > 1 or key not in needed:
            yield f"'{key[0]}' is sent {times} times from {key[1]} to {key[2]}, needed {int(key in needed)}"


def _needs_are_sent(graph: Graph, plan: Plan) -> bool:
    """Whether each transfer that is needed is given once, and no other."""
    number = {name: k for k, name in enumerate(plan.cluster.device)}
    tensor = dict(zip(graph.tensor, range(len(graph.tensor)), strict=True))
    where = _numbers(number, map(plan.device.get, graph.op))
    sent = np.stack([_numbers(of, (key[k] for key in plan.transfers)) for k, of in enumerate((tensor, number, number))])
    c = graph.columns
    source, reader = where[c.maker], where[c.reader]
    if min(where.min(initial=0), sent.min(initial=0)) < 0 or (source[sent[0]] != sent[1]).any():
        return False
    crosses = source[c.in_t] != reader
    needed = np.unique(c.in_t[crosses] * len(number) + reader[crosses])
    return np.array_equal(needed, np.sort(sent[0] * len(number) + sent[2]))


def _numbers(number: Mapping[str, int], names: Iterable[str | None]) -> NDArray[np.int64]:
    """The number of each name, -1 of one that has none."""
    return np.array([number.get(name, -1) for name in names], np.int64)  # type: ignore[arg-type]


def _runnable(graph: Graph, plan: Plan) -> Iterator[str]:
    """Orders of devices and dependencies must not wait for each other."""
    c, index = graph.columns, dict(zip(graph.op, range(len(graph)), strict=True))
    after = np.repeat(np.arange(len(graph)), np.diff(c.after_ptr))
    firsts, seconds = [c.maker[c.in_t], c.after_op], [c.reader, after]
    for ops in plan.order.values():
        order = _numbers(index, ops)
        known = order[1:] >= 0
        firsts.append(np.where(order[:-1] < 0, len(graph), order[:-1])[known])
        seconds.append(order[1:][known])
    stuck = first_stuck(np.concatenate(firsts), np.concatenate(seconds), len(graph))
    if stuck >= 0:
        yield f"the orders of the devices wait for each other, at op '{graph.ops[stuck].name}' for one"


def _fits(graph: Graph, plan: Plan) -> Iterator[str]:
    for name, peak in plan.predicted.peak_bytes.items():
        cap = plan.cluster.device[name].cap
        if peak > cap:
            yield f"memory[{name}]: predicted {format_bytes(peak)}, the cap is {format_bytes(cap)}"


RULES: dict[str, Callable[[Graph, Plan], Iterator[str]]] = {
    "same graph": _same_graph,
    "every op on a device": _complete,
    "every op once in an order": _ordered_once,
    "groups together": _together,
    "every read is local or sent": _sent,
    "no deadlock": _runnable,
    "memory": _fits,
}
