"""Measure how many bytes live on each device during a step, from a trace of it."""

from collections.abc import Mapping

from baechi.frontends.tf.program import TensorFlowProgram
from baechi.ir.plan import Plan
from baechi.profile.tf.trace import Event, Traced

__all__ = ["curves_of", "peaks_of", "persistent_bytes"]


def persistent_bytes(program: TensorFlowProgram, plan: Plan) -> dict[str, int]:
    """Bytes of the variables on each device of a plan."""
    found = dict.fromkeys(plan.cluster.device, 0)
    for name in program.variables.values():
        found[plan.device[name]] += program.graph.op[name].persistent_bytes
    return found


def peaks_of(traced: Traced, names: Mapping[str, str]) -> dict[str, int]:
    """The most bytes that were allocated at once on each device; see `curves_of`."""
    return {device: max(nbytes for _, nbytes in curve) for device, curve in curves_of(traced, names).items()}


def curves_of(traced: Traced, names: Mapping[str, str]) -> dict[str, tuple[tuple[float, int], ...]]:
    """The bytes that were allocated on each device at each change, variables left out; the first at 0.0.

    A buffer lives from when the first node that shows it starts to when the last node that reads a result
    of its place, or makes one there, ends. What a kernel takes only while it runs is added meanwhile.

    Args:
        traced: one step.
        names: by TensorFlow's name of a device, that of the plan.
    """
    ran = {(event.device, event.node): event for event in traced.events}
    ends = _ends(traced, ran)
    changes: dict[str, list[tuple[float, int]]] = {device: [] for device in names}
    open_: dict[tuple[str, int], tuple[float, float, int]] = {}
    for event in traced.events:
        rows = changes.get(event.device)
        if rows is None:
            continue
        if event.temp_bytes > 0:
            rows += [(event.start, event.temp_bytes), (event.end, -event.temp_bytes)]
        for slot, buffer in enumerate(event.outputs):
            if buffer is None or event.kind in ("_Arg", "VarHandleOp", "ReadVariableOp", "_Recv", "Const"):
                continue
            until = ends.get((event.device, event.node, slot), event.end)
            key = event.device, buffer.address
            known = open_.get(key)
            if known is not None and event.start <= known[1]:  # the same memory, handed on
                open_[key] = known[0], max(known[1], until), max(known[2], buffer.nbytes)
                continue
            if known is not None:
                rows += [(known[0], known[2]), (known[1], -known[2])]
            open_[key] = event.start, until, buffer.nbytes
    for (device, _), (start, end, nbytes) in open_.items():
        changes[device] += [(start, nbytes), (end, -nbytes)]
    return {names[device]: _curve(rows) for device, rows in changes.items()}


def _ends(traced: Traced, ran: Mapping[tuple[str, str], Event]) -> dict[tuple[str, str, int], float]:
    """By device, node and slot, when the last reader on that device ends."""
    found: dict[tuple[str, str, int], float] = {}
    for graph in traced.graphs:
        for node in graph.node:
            reader = ran.get((node.device, node.name))
            for ref in node.input:
                if reader is not None and not ref.startswith("^"):
                    name, _, slot = ref.partition(":")
                    key = node.device, name, int(slot or 0)
                    found[key] = max(found.get(key, 0.0), reader.end)
    return found


def _curve(rows: list[tuple[float, int]]) -> tuple[tuple[float, int], ...]:
    now, curve = 0, [(0.0, 0)]
    for seconds, nbytes in sorted(rows):
        now += nbytes
        curve.append((seconds, now))
    return tuple(curve)
