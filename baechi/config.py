"""Clusters as people write them: ``4x8GiB``, ``4x30%``, ``rtx2080+2xrtx3060:8GiB``, or a TOML file.

A TOML file has the entries of `Cluster.to_dict`; in a ``[[device]]`` table a ``preset``, a
``count`` and a ``memory`` such as ``"8GiB"`` or ``"30%"`` may stand instead of the plain fields.
"""

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from baechi.document import Entry, load_toml
from baechi.errors import BaechiError
from baechi.ir.cluster import Cluster, Contention, Device, Link
from baechi.ir.records import DEVICE_FIELDS, cluster_from_entry, device_from_entry
from baechi.presets import Preset, find_preset, presets
from baechi.units import parse_bytes

__all__ = ["LOCAL", "cores", "local_cluster", "parse_cluster", "presets", "read_device", "resize"]

LOCAL: Mapping[str, float] = {
    "flops_per_second": 50e9,
    "bytes_per_second": 10e9,
    "launch_seconds": 5e-6,
    "link_bytes_per_second": 8e9,
    "link_latency_seconds": 30e-6,
}
"""Rates of a virtual device on this machine's processor, until they are measured."""

_FORMS = "write 4x8GiB, 4x30%, 2xrtx2080, rtx2080+2xrtx3060:8GiB, local, or the path of a TOML file"
_MOST_DEVICES = 4096
_PART = re.compile(r"(?:(?P<count>\d+)x)?(?P<what>[^:]+)(?::(?P<memory>.+))?", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z][\w -]*")
_LOCAL_NAMES = ("cpu", "local")
_SIZE = re.compile(r"\d+(\.\d+)?\s*(([KMGT]i?)?B)?|\d+(\.\d+)?\s*%", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class _Kind:
    """A device without its name, and the link it brings."""

    device: Device
    link: Link
    board: bool = False


def parse_cluster(
    spec: str, *, contention: Contention | None = None, measured: Mapping[str, float] | None = None
) -> Cluster:
    """Read a cluster.

    Args:
        spec: a shorthand, or the path of a TOML file. Parts are joined by ``+`` or ``,``; each is
            ``[COUNTx]WHAT[:MEMORY]``, where WHAT is a size or a percentage of the step's
            single-device peak (virtual devices on this machine's processor), a preset, or
            ``local`` or ``cpu`` (this machine's processor).
        contention: how transfers contend, instead of the file's own or ``duplex``.
        measured: rates of this machine instead of `LOCAL`.

    Raises:
        BaechiError: B305 on a bad entry of a file, B306 on a spec that is none, B307 on an unknown preset.

    Example:
        >>> [d.name for d in parse_cluster("2x8GiB").devices]
        ['cpu:0', 'cpu:1']
        >>> parse_cluster("rtx2080+2xrtx3060:8GiB").devices[2].memory_bytes
        8589934592
    """
    spec = spec.strip()
    if spec.lower().endswith(".toml") or Path(spec).is_file():
        cluster = _read_cluster(Path(spec), measured)
    else:
        kinds = [kind for part in re.split(r"[+,]", spec) for kind in _parse_part(part.strip(), spec, measured)]
        cluster = _assemble(kinds)
    return replace(cluster, contention=contention) if contention else cluster


def local_cluster(count: int, memory: str | None = None, measured: Mapping[str, float] | None = None) -> Cluster:
    """Virtual devices that share this machine's processor.

    Args:
        count: how many.
        memory: of each: a size or a percentage; an equal share of what is free, less 5 %, when None.
        measured: rates of this machine by the names of `LOCAL`; what it lacks is taken from there.

    Raises:
        BaechiError: B306 when `count` or `memory` is no such thing.
    """
    return _assemble([_local_kind(memory, count, measured)] * _count(count, f"{count}xlocal"))


def resize(cluster: Cluster, *, devices: int | None = None, memory: str | None = None) -> Cluster:
    """The cluster with another number of devices, each like its first, or another memory cap.

    Args:
        cluster: the cluster.
        devices: how many; the first ones stay, new ones are like the first.
        memory: of each device: a size (``8GiB``, ``4``) or a percentage of the single-device peak.

    Raises:
        BaechiError: B306 when `devices` or `memory` is no such thing.

    Example:
        >>> [d.name for d in resize(parse_cluster("1x8GiB"), devices=3).devices]
        ['cpu:0', 'cpu:1', 'cpu:2']
    """
    kept = list(cluster.devices)
    if devices is not None:
        kept = kept[: _count(devices, str(devices))]
        prefix = kept[0].name.partition(":")[0]
        taken = {d.name for d in kept}
        free = (name for i in range(2 * devices) if (name := f"{prefix}:{i}") not in taken)
        kept += [replace(kept[0], name=next(free)) for _ in range(devices - len(kept))]
    if memory is not None:
        kept = [replace(d, **_memory(memory, memory)) for d in kept]
    names = {d.name for d in kept}
    links = {ends: link for ends, link in cluster.links.items() if names.issuperset(ends)}
    return replace(cluster, devices=tuple(kept), links=links)


def _parse_part(part: str, spec: str, measured: Mapping[str, float] | None) -> list[_Kind]:
    match = _PART.fullmatch(part)
    if match is None:
        raise BaechiError("B306", f"'{spec}' is not a cluster", help=_FORMS)
    what, memory = match["what"].strip(), match["memory"]
    count = _count(int(match["count"] or 1), part)
    if _SIZE.fullmatch(what) and memory is None and (match["count"] or not what.isdigit()):
        return [_local_kind(what, count, measured)] * count
    if what.lower() in _LOCAL_NAMES:
        return [_local_kind(memory, count, measured)] * count
    if not _NAME.fullmatch(what):
        raise BaechiError("B306", f"'{spec}' is not a cluster", help=_FORMS)
    kind = _preset_kind(find_preset(what))
    return [replace(kind, device=replace(kind.device, **_memory(memory, part))) if memory else kind] * count


def _count(count: int, where: str) -> int:
    if not 1 <= count <= _MOST_DEVICES:
        raise BaechiError("B306", f"'{where}' has {count} devices", help=f"from 1 to {_MOST_DEVICES}")
    return count


def _memory(text: str, where: str) -> dict[str, Any]:
    if not _SIZE.fullmatch(text.strip()):
        raise BaechiError("B306", f"'{where}': '{text}' is not a memory size", help="write 8GiB, 500MB, 4096 or 30%")
    if text.strip().endswith("%"):
        size: dict[str, Any] = {"memory_fraction": float(text.strip().rstrip("% ")) / 100, "memory_bytes": None}
    else:
        size = {"memory_bytes": parse_bytes(text), "memory_fraction": None}
    if not any(size.values()):
        raise BaechiError("B306", f"'{where}' has devices without memory", help="write 8GiB, 500MB, 4096 or 30%")
    return size


def _local_kind(memory: str | None, count: int, measured: Mapping[str, float] | None, threads: int = 1) -> _Kind:
    rates = {**LOCAL, **(measured or {})}
    size = _memory(memory, memory) if memory else {"memory_bytes": int(_free_bytes() * 0.95) // max(1, count)}
    device = Device(
        "",
        type="cpu" if threads == 1 else f"cpu-{threads}-threads",
        flops_per_second={"float32": threads * rates["flops_per_second"]},
        bytes_per_second=rates["bytes_per_second"],
        launch_seconds=rates["launch_seconds"],
        threads=threads,
        **size,
    )
    return _Kind(device, Link(rates["link_latency_seconds"], rates["link_bytes_per_second"]))


def _free_bytes() -> int:
    import psutil  # its import takes longer than all the rest of this module

    return int(psutil.virtual_memory().available)


def _preset_kind(preset: Preset) -> _Kind:
    rates = ("flops_per_second", "bytes_per_second", "host_bytes_per_second", "launch_seconds", "efficiency")
    fields = ("memory_bytes", "backend", *rates)
    device = Device("", type=preset.name, **{name: getattr(preset, name) for name in fields})
    return _Kind(device, preset.link, preset.board)


def _assemble(kinds: Sequence[_Kind], names: Sequence[str] = ()) -> Cluster:
    """Name the devices by backend, give each board a host of its own, and join every pair."""
    devices: list[Device] = []
    numbers: dict[str, int] = {}
    for i, kind in enumerate(kinds):
        backend = kind.device.backend
        number = numbers[backend] = numbers.get(backend, -1) + 1
        host = f"board{i}" if kind.board else kind.device.host
        name = (names[i] if names else "") or f"{backend}:{number}"
        devices.append(replace(kind.device, name=name, host=host))
    link, links = _join(devices, [kind.link for kind in kinds])
    shared = any(d.type.partition("-")[0] == "cpu" and d.host == "host0" for d in devices)
    return Cluster(tuple(devices), link, links, cores={"host0": cores()} if shared else {})


def _join(devices: Sequence[Device], own: Sequence[Link]) -> tuple[Link, dict[tuple[str, str], Link]]:
    """A pair's link is as slow as the slower of the links that its two devices bring."""
    common = _slower(own[:2])
    links = {}
    for i, j in combinations(range(len(devices)), 2):
        link = _slower((own[i], own[j]))
        if link != common:
            links[devices[i].name, devices[j].name] = links[devices[j].name, devices[i].name] = link
    return common, links


def _slower(links: Iterable[Link]) -> Link:
    pair = list(links)
    return Link(max(k.latency_seconds for k in pair), min(k.bytes_per_second for k in pair))


def cores() -> int:
    """Of this machine, as far as this process may use them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_cluster(path: Path, measured: Mapping[str, float] | None) -> Cluster:
    root = load_toml(path, "B305", missing="B308", malformed="B305")
    root.only(("contention", "link", "cores", "device", "links"))
    kinds: list[_Kind] = []
    names: list[str] = []
    entries = root.at("device").items()
    if not entries:
        raise root.at("device").expected("at least one device")
    for entry in entries:
        kind, count = _read_device(entry, measured)
        kinds += [kind] * count
        name = kind.device.name
        names += [name] if count == 1 else [name and f"{name}:{i}" for i in range(count)]
    try:
        data = _assemble(kinds, names).to_dict()
    except BaechiError as error:
        raise root.error(error.what, help=error.help) from None
    if root.find("link"):
        data.pop("links", None)  # the file's own link stands for those that the devices bring
    data |= {key: value for key, value in root.table().items() if key != "device"}
    return cluster_from_entry(Entry(data, root.source))


def read_device(entry: Entry) -> tuple[Device, int]:
    """A ``[[device]]`` table of a cluster file: the device, whose name may be empty, and how many there are.

    Raises:
        BaechiError: of the entry's code on a bad one, B306 and B307 as `parse_cluster`.
    """
    kind, count = _read_device(entry, None)
    return kind.device, count


def _read_device(entry: Entry, measured: Mapping[str, float] | None) -> tuple[_Kind, int]:
    entry.only((*DEVICE_FIELDS, "preset", "count", "memory"))
    given = {"name": "", **{k: v for k, v in entry.table().items() if k in DEVICE_FIELDS}}
    preset, number, memory = entry.find("preset"), entry.find("count"), entry.find("memory")
    count = _count(number.integer(), f"{number.source.name}: {number.path}") if number else 1
    kind = _Kind(Device(""), Link())
    if preset and preset.text().lower() in _LOCAL_NAMES:
        threads = entry.find("threads")
        kind = _local_kind(None, count, measured, threads.integer() if threads else 1)
    elif preset:
        kind = _preset_kind(_find_preset(preset))
    if preset:
        given = {**{k: v for k, v in asdict(kind.device).items() if v != math.inf}, **given}  # no document has these
    if memory:
        given |= _memory_entry(memory)
    device = device_from_entry(entry._replace(value=given))
    if device.memory_bytes is None and device.memory_fraction is None:
        raise entry.error("'memory' is missing", help='write memory = "8GiB" or memory = "30%"')
    return replace(kind, device=device, board=kind.board and "host" not in entry.table()), count


def _find_preset(entry: Entry) -> Preset:
    try:
        return find_preset(entry.text())
    except BaechiError as error:
        raise entry.error(error.what, help=error.help, code=error.code) from None


def _memory_entry(entry: Entry) -> dict[str, Any]:
    if isinstance(entry.value, bool) or not _SIZE.fullmatch(str(entry.value).strip()):
        raise entry.expected('a size such as "8GiB" or "30%"')
    return _memory(str(entry.value), f"{entry.source.name}: {entry.path}")
