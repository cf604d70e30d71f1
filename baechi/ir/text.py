"""Plans and timelines as text that a person reads and a program reads back.

A name stands as it is, or as a JSON string when it is empty or has a space, a quote or ``#`` in it.
A line ``word value`` carries a field, its value in JSON. What follows ``#`` is for the reader.
"""

import json
import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from baechi.errors import BaechiError
from baechi.ir.cluster import Cluster, Device
from baechi.ir.json import TIMELINE_SCHEMA, plan_from_dict, plan_to_dict, timeline_from_dict
from baechi.ir.plan import Plan
from baechi.ir.timeline import Timeline
from baechi.units import format_bytes, format_seconds

__all__ = ["format_cluster", "format_plan", "format_timeline", "parse_plan", "parse_timeline"]

_BARE = re.compile(r"[^\s\"#\[\]{}]+")
_TOKEN = re.compile(r"\"(?:[^\"\\]|\\.)*\"|[^\s\"#]+")
_PLAN_PARTS = ("schema", "graph", "placer", "seed", "version", "predicted", "bounds")
_CLUSTER_PARTS = ("contention", "link", "cores", "links")


def format_cluster(cluster: Cluster) -> str:
    """One line that says what a cluster is.

    Example:
        >>> format_cluster(Cluster((Device("a", 2**33), Device("b", 2**33))))
        '2 x unit of 8.00 GiB, duplex'
    """
    kinds = [(device.type, _memory(device)) for device in cluster.devices]
    parts = [f"{len(list(same))} x {_name(kind)} of {memory}" for (kind, memory), same in groupby(kinds)]
    return " + ".join(parts) + f", {cluster.contention}"


def _memory(device: Device) -> str:
    if device.memory_bytes is not None:
        return format_bytes(device.memory_bytes)
    if device.memory_fraction is not None:
        return f"{device.memory_fraction:.4g} of the peak"
    return "unknown memory"


def format_plan(plan: Plan) -> str:
    """A plan as text; `parse_plan` reads it back."""
    data = plan_to_dict(plan)
    cluster = data["cluster"]
    said = {"predicted": format_seconds(plan.predicted.step_seconds), "bounds": f"{plan.gap:.1%} above the best"}
    lines = [f"{part} {_value(data[part])}" + (f"  # {said[part]}" if part in said else "") for part in _PLAN_PARTS]
    lines += ["", f"# {format_cluster(plan.cluster)}"]
    lines += [f"{part} {_value(cluster[part])}" for part in _CLUSTER_PARTS if part in cluster]
    lines += [f"device {_value(device)}" for device in cluster["device"]]
    for device, ops in plan.order.items():
        peak = plan.predicted.peak_bytes.get(device, 0)
        cap = plan.cluster.device[device].cap
        lines += ["", f"order {_name(device)}  # {len(ops)} ops, {format_bytes(peak)} of {format_bytes(cap)}"]
        lines += [f"  {_name(op)}" for op in ops]
    if plan.transfers:
        lines += ["", f"transfers  # {len(plan.transfers)}"]
        lines += [f"  {_name(t)} {_name(source)} -> {_name(to)}" for t, source, to in plan.transfers]
    return "\n".join(lines) + "\n"


def parse_plan(text: str, *, name: str = "plan") -> Plan:
    """Read a plan back from `format_plan`.

    Args:
        text: the plan.
        name: what errors call it.

    Raises:
        BaechiError: B405 on a malformed line, else as `plan_from_dict`.
    """
    cluster: dict[str, Any] = {"device": []}
    data: dict[str, Any] = {"cluster": cluster, "order": {}, "transfers": []}
    section: list[Any] | None = None
    for number, line in _meaningful(text):
        where = f"{name}, line {number}"
        word, _, rest = line.partition(" ")
        match word:
            case "" if section is not None:
                section.append(_plan_item(line, section is data["transfers"], where))
            case "order":
                section = []
                data["order"][_names(rest, where, 1)[0]] = section
            case "transfers":
                section = data["transfers"]
            case "device":
                cluster["device"].append(_json(rest, where))
            case _ if word in _CLUSTER_PARTS:
                cluster[word] = _json(rest, where)
            case _ if word in _PLAN_PARTS:
                data[word] = _json(rest, where)
            case _:
                raise _malformed(where, line)
    data["device"] = {op: device for device, ops in data["order"].items() for op in ops}
    return plan_from_dict(data, name=name)


def _plan_item(line: str, transfer: bool, where: str) -> str | list[str]:
    if not transfer:
        return _names(line, where, 1)[0]
    tensor, source, arrow, destination = _names(line, where, 4)
    if arrow != "->":
        raise _malformed(where, line)
    return [tensor, source, destination]


def format_timeline(timeline: Timeline) -> str:
    """A timeline as text, times in seconds; `parse_timeline` reads it back."""
    lines = [f"schema {_value(TIMELINE_SCHEMA)}"]
    lines.append(f"# {format_seconds(timeline.step_seconds)}")
    lines += [f"op {_value(s.start)} {_value(s.end)} {_name(s.device)} {_name(s.op)}" for s in timeline.ops]
    for t in timeline.transfers:
        ends = f"{_name(t.source)} -> {_name(t.destination)}"
        lines.append(f"transfer {_value(t.start)} {_value(t.end)} {ends} {_name(t.tensor)} {t.nbytes}")
    for device, curve in timeline.memory.items():
        peak = format_bytes(timeline.peak_bytes[device])
        lines += ["", f"memory {_name(device)}  # {peak}"]
        lines += [f"  {_value(seconds)} {nbytes}" for seconds, nbytes in curve]
    return "\n".join(lines) + "\n"


def parse_timeline(text: str, *, name: str = "timeline") -> Timeline:
    """Read a timeline back from `format_timeline`; errors as `parse_plan`."""
    data: dict[str, Any] = {"ops": [], "transfers": [], "memory": {}}
    curve: list[list[Any]] | None = None
    for number, line in _meaningful(text):
        where = f"{name}, line {number}"
        word, _, rest = line.partition(" ")
        match word:
            case "schema":
                data["schema"] = _json(rest, where)
            case "op":
                start, end, device, op = _names(rest, where, 4)
                data["ops"].append([op, device, _json(start, where), _json(end, where)])
            case "transfer":
                start, end, source, _, to, tensor, nbytes = _names(rest, where, 7)
                numbers = [_json(n, where) for n in (start, end, nbytes)]
                data["transfers"].append([tensor, source, to, *numbers])
            case "memory":
                curve = []
                data["memory"][_names(rest, where, 1)[0]] = curve
            case "" if curve is not None:
                curve.append([_json(n, where) for n in _names(line, where, 2)])
            case _:
                raise _malformed(where, line)
    return timeline_from_dict(data, name=name)


def _value(value: Any) -> str:
    return json.dumps(value)


def _name(name: str) -> str:
    return name if _BARE.fullmatch(name) and name != "->" else json.dumps(name)


def _meaningful(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip() and not line.startswith("#"):
            yield number, line


def _names(text: str, where: str, count: int | None = None) -> list[str]:
    tokens = _tokens(text)
    if count is not None and len(tokens) != count:
        raise _malformed(where, text)
    return [_json(token, where) if token.startswith('"') else token for token in tokens]


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    while at < len(text) and text[at] != "#":
        match = _TOKEN.match(text, at)
        if match:
            tokens.append(match[0])
        at = match.end() if match else at + 1
    return tokens


def _json(text: str, where: str) -> Any:
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError:
        raise _malformed(where, text) from None
    rest = text[end:].strip()
    if rest and not rest.startswith("#"):
        raise _malformed(where, text)
    return value


def _malformed(where: str, text: str) -> BaechiError:
    return BaechiError("B405", f"{where}: cannot read '{text}'")
