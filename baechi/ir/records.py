"""How each record of the IR is read from a document and written as plain data."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from baechi.document import Entry, build, optional
from baechi.errors import BaechiError
from baechi.ir.cluster import CONTENTIONS, Cluster, Device, Link
from baechi.ir.op import PHASES, Op, Tensor

__all__ = ["DEVICE_FIELDS", "cluster_from_entry", "device_from_entry", "op_from_entry", "op_to_dict"]

Readers = Mapping[str, Callable[[Entry], Any]]


def _choice(*choices: str) -> Callable[[Entry], str]:
    def read(entry: Entry) -> str:
        if entry.value not in choices:
            raise entry.expected("one of " + ", ".join(choices))
        return str(entry.value)

    return read


def _texts(entry: Entry) -> tuple[str, ...]:
    return tuple(e.text() for e in entry.items())


def _rate(entry: Entry) -> float:
    if entry.number() <= 0:
        raise entry.expected("a number above 0")
    return entry.number()


def _cost(entry: Entry) -> float:
    if entry.number() < 0:
        raise entry.expected("a number of at least 0")
    return entry.number()


_TENSOR: Readers = {
    "name": Entry.text,
    "nbytes": Entry.integer,
    "shape": lambda entry: tuple(e.integer() for e in entry.items()),
    "dtype": Entry.text,
    "alias_of": optional(Entry.text),
    "held": Entry.integer,
    "seconds": optional(Entry.number),
    "keep": Entry.flag,
    "scattered": Entry.flag,
}
_OP: Readers = {
    "name": Entry.text,
    "kind": Entry.text,
    "inputs": _texts,
    "outputs": lambda entry: tuple(build(Tensor, e, _TENSOR) for e in entry.items()),
    "after": _texts,
    "phase": _choice(*PHASES),
    "flops": Entry.number,
    "moved_bytes": Entry.integer,
    "temp_bytes": Entry.integer,
    "persistent_bytes": Entry.integer,
    "seconds": optional(Entry.number),
    "arithmetic": Entry.text,
    "group": optional(Entry.text),
    "module": Entry.text,
    "source": Entry.text,
    "forward": optional(Entry.text),
    "key": Entry.text,
    "expert": optional(Entry.integer),
    "copy": optional(Entry.integer),
    "draws": Entry.flag,
    "host_seconds": optional(Entry.number),
}
_LINK: Readers = {"latency_seconds": _cost, "bytes_per_second": _rate}
_DEVICE: Readers = {
    "name": Entry.text,
    "memory_bytes": optional(Entry.integer),
    "memory_fraction": optional(_rate),
    "type": Entry.text,
    "backend": Entry.text,
    "flops_per_second": lambda entry: {kind: _rate(e) for kind, e in entry.entries()},
    "bytes_per_second": _rate,
    "host_bytes_per_second": _cost,
    "launch_seconds": _cost,
    "efficiency": _rate,
    "speed": _rate,
    "host": Entry.text,
    "threads": Entry.integer,
    "in_host_memory": Entry.flag,
}


def _plain(record: Any) -> dict[str, Any]:
    """A dataclass as a dict without the fields that are at their default.

    A default of another type stays (``0`` where the default is ``0.0``): a graph's digest sees it.
    """
    plain = {}
    for field in fields(record):
        value = getattr(record, field.name)
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if value != default or type(value) is not type(default):
            plain[field.name] = value
    return plain


def op_to_dict(op: Op) -> dict[str, Any]:
    """An op as plain data."""
    plain = _plain(op)
    if op.outputs:
        plain["outputs"] = [_plain(t) for t in op.outputs]
    return plain


def op_from_entry(entry: Entry) -> Op:
    """Read an op from a document: the shape of `op_to_dict`.

    Raises:
        BaechiError: on an unknown, missing or malformed entry, with the document's code.
    """
    return build(Op, entry, _OP)


DEVICE_FIELDS = tuple(_DEVICE)
"""The entries that a device of a cluster may have."""


def device_from_entry(entry: Entry) -> Device:
    """Read a device from a document; errors as `cluster_from_entry`."""
    return build(Device, entry, _DEVICE)


def cluster_from_entry(entry: Entry) -> Cluster:
    """Read a cluster from a document: the shape of `Cluster.to_dict`.

    Raises:
        BaechiError: on a missing or malformed entry, with the document's code.
    """
    entry.only(("contention", "link", "cores", "device", "links"))
    link, cores, contention = entry.find("link"), entry.find("cores"), entry.find("contention")
    links: dict[tuple[str, str], Link] = {}
    for e in (entry.find("links") or Entry([], entry.source)).items():
        rest = {k: v for k, v in e.table().items() if k not in ("source", "destination")}
        ends = e.at("source").text(), e.at("destination").text()
        links[ends] = build(Link, e._replace(value=rest), _LINK)
    devices = tuple(device_from_entry(e) for e in entry.at("device").items())
    try:
        return Cluster(
            devices,
            build(Link, link, _LINK) if link else Link(),
            links,
            _choice(*CONTENTIONS)(contention) if contention else "duplex",  # type: ignore[arg-type]
            {host: e.integer() for host, e in cores.entries()} if cores else {},
        )
    except BaechiError as error:
        raise entry.error(error.what, help=error.help) if error.code == "B304" else error from None
