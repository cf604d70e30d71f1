"""What a plan must satisfy, as small named rules; the verifier reports every violation."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise

from baechi.ir.graph import Graph
from baechi.ir.plan import Plan
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
    for op in graph.ops:
        if op.name not in plan.device:
            yield f"op '{op.name}' has no device"
    for name, device in plan.device.items():
        if name not in graph.op:
            yield f"'{name}' is no op of the graph"
        if device not in plan.cluster.device:
            yield f"op '{name}' is on '{device}', which is no device of the cluster"


def _ordered_once(graph: Graph, plan: Plan) -> Iterator[str]:
    ordered = Counter((name, device) for device, ops in plan.order.items() for name in ops)
    for (name, device), times in ordered.items():
        if times > 1 or plan.device.get(name) != device:
            yield f"op '{name}' is {times} times in the order of {device}, its device is {plan.device.get(name)}"
    for name, device in plan.device.items():
        if (name, device) not in ordered:
            yield f"op '{name}' is not in the order of {device}"


def _together(graph: Graph, plan: Plan) -> Iterator[str]:
    for name, ops in graph.groups.items():
        devices = {plan.device.get(op.name) for op in ops}
        if len(devices) > 1:
            yield f"group '{name}' is spread over {', '.join(sorted(map(str, devices)))}"


def _sent(graph: Graph, plan: Plan) -> Iterator[str]:
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


def _runnable(graph: Graph, plan: Plan) -> Iterator[str]:
    """Orders of devices and dependencies must not wait for each other."""
    waits: dict[str, set[str]] = {
        op.name: {graph.producer[t].name for t in op.inputs} | set(op.after) for op in graph.ops
    }
    for ops in plan.order.values():
        for first, second in pairwise(ops):
            waits.get(second, set()).add(first)
    readers: dict[str, list[str]] = {}
    for name, before in waits.items():
        for other in before:
            readers.setdefault(other, []).append(name)
    left = {name: len(before) for name, before in waits.items()}
    free = [name for name, count in left.items() if count == 0]
    done = 0
    while free:
        done += 1
        for reader in readers.get(free.pop(), ()):
            left[reader] -= 1
            if left[reader] == 0:
                free.append(reader)
    if done < len(waits):
        stuck = next(name for name, count in left.items() if count)
        yield f"the orders of the devices wait for each other, at op '{stuck}' for one"


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
