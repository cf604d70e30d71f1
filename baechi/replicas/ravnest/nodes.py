"""The peers of a decentralised cluster: a device each, and the bandwidth with which it reaches the others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

from baechi.config import read_device
from baechi.document import Entry, load_toml
from baechi.errors import BaechiError
from baechi.ir.cluster import Cluster, Device, Link
from baechi.units import parse_bytes, parse_seconds

__all__ = ["Node", "cluster_of", "read_nodes"]

_OWN = ("bandwidth", "latency")


@dataclass(frozen=True, slots=True)
class Node:
    """A peer.

    Args:
        device: what it computes on; its name is the peer's.
        bytes_per_second: bandwidth to the others.
        latency_seconds: of a message to or from it.

    Raises:
        BaechiError: B854 when its memory is unknown or a rate is none.
    """

    device: Device
    bytes_per_second: float
    latency_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.device.memory_bytes is None:
            raise BaechiError("B854", f"peer '{self.name}' has no memory", help='write memory = "8GiB"')
        if not (self.bytes_per_second > 0 and self.latency_seconds >= 0):
            raise BaechiError("B854", f"peer '{self.name}' has a bandwidth or a latency that is none")

    @property
    def name(self) -> str:
        """Its name."""
        return self.device.name

    @property
    def memory_bytes(self) -> int:
        """Its memory."""
        return self.device.cap

    @property
    def drain_seconds(self) -> float:
        """Time in which its whole memory goes over its line: what Ravnest evens out between clusters."""
        return self.memory_bytes / self.bytes_per_second


def cluster_of(nodes: Sequence[Node]) -> Cluster:
    """The peers as a cluster to place on: a pair's link is as slow as the slower of the two, and each is a host.

    Example:
        >>> a, b = Node(Device("a", 8), 1e6), Node(Device("b", 8), 2e6, 0.01)
        >>> cluster_of([a, b]).link_between("a", "b")
        Link(latency_seconds=0.01, bytes_per_second=1000000.0)
    """
    links = {
        (a.name, b.name): Link(a.latency_seconds + b.latency_seconds, min(a.bytes_per_second, b.bytes_per_second))
        for a, b in permutations(nodes, 2)
    }
    return Cluster(tuple(replace(n.device, host=n.name) for n in nodes), links=links)


def read_nodes(path: str | Path) -> tuple[Node, ...]:
    """Read peers from a TOML file.

    Args:
        path: of a file with ``[[peer]]`` tables: the fields of a ``[[device]]`` of a cluster file, with ``preset``,
            ``count`` and ``memory`` where these are shorter, and ``bandwidth = "12MB"`` (each second) and
            ``latency = "5ms"``.

    Raises:
        BaechiError: B854 on a file that cannot be read or an entry that is none, B3xx as for a cluster.
    """
    root = load_toml(path, "B854", missing="B854", malformed="B854")
    root.only(("peer",))
    found: list[Node] = []
    for entry in root.at("peer").items():
        found += _read(entry, len(found))
    if not found:
        raise root.at("peer").expected("at least one peer")
    names = [node.name for node in found]
    for name in names:
        if names.count(name) > 1:
            raise root.error(f"two peers are called '{name}'")
    return tuple(found)


def _read(entry: Entry, first: int) -> list[Node]:
    bandwidth, latency = entry.at("bandwidth"), entry.find("latency")
    rest = {key: value for key, value in entry.table().items() if key not in _OWN}
    device, count = read_device(entry._replace(value=rest))
    if device.memory_bytes is None:
        raise entry.error("a peer's memory is a size, not a share", help='write memory = "8GiB"')
    rate = _size(bandwidth)
    wait = 0.0 if latency is None else _time(latency)
    name = device.name or f"peer{first}"
    names = [name] if count == 1 else [f"{name}:{i}" for i in range(count)]
    return [Node(replace(device, name=one), rate, wait) for one in names]


def _size(entry: Entry) -> float:
    rate = entry.value if isinstance(entry.value, int | float) and not isinstance(entry.value, bool) else None
    if rate is None:
        try:
            rate = parse_bytes(entry.text().removesuffix("/s"))
        except BaechiError:
            raise entry.expected('bytes a second such as "12MB"') from None
    if not 0 < rate < float("inf"):
        raise entry.expected("a bandwidth above 0")
    return float(rate)


def _time(entry: Entry) -> float:
    try:
        return parse_seconds(str(entry.value))
    except ValueError:
        raise entry.expected('a time such as "5ms"') from None
