"""Devices, the links between them, and how transfers contend."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from baechi.errors import BaechiError

__all__ = ["CONTENTIONS", "UNLIMITED_BYTES", "Cluster", "Contention", "Device", "Link"]

UNLIMITED_BYTES = 1 << 56
"""More memory than any device has; sums of it stay far from 64 bits."""

Contention = Literal["sequential", "duplex", "parallel"]
CONTENTIONS: tuple[Contention, ...] = ("sequential", "duplex", "parallel")


@dataclass(frozen=True, slots=True)
class Device:
    """Something that runs one op at a time and has memory of its own.

    Attributes:
        name: unique in the cluster, such as ``cuda:0``.
        memory_bytes: its cap; `None` while it is still a `memory_fraction`.
        memory_fraction: the cap as a fraction of the step's single-device peak.
        type: what it is, such as ``rtx2080``; measured times are kept per type.
        backend: ``cpu`` or ``cuda``: what runs its ops.
        flops_per_second: peak rate by kind of arithmetic, such as ``float32``.
        bytes_per_second: bandwidth of its own memory.
        host_bytes_per_second: rate at which it copies to and from the memory of its machine, where that is
            slower than its own; 0 when it has no memory beside that, so that nothing can be offloaded.
        launch_seconds: overhead of starting one op.
        efficiency: the share of the peak rate that a large kernel reaches.
        speed: factor on declared op times (`Op.seconds`): 2.0 halves them.
        host: the machine that it is in.
        threads: processor threads that an op on a ``cpu`` device runs on; the rates are those of all.
        in_host_memory: it works in the memory of its machine, as a processor beside accelerators does. What goes
            there or comes from there is copied by the other side alone: it takes its time on the link, but none
            of this device's load and none of its copy lanes. An op may take another time here, `Op.host_seconds`.
    """

    name: str
    memory_bytes: int | None = None
    memory_fraction: float | None = None
    type: str = "unit"
    backend: str = "cpu"
    flops_per_second: Mapping[str, float] = field(default_factory=dict)
    bytes_per_second: float = float("inf")
    host_bytes_per_second: float = float("inf")
    launch_seconds: float = 0.0
    efficiency: float = 1.0
    speed: float = 1.0
    host: str = "host0"
    threads: int = 1
    in_host_memory: bool = False

    @property
    def cap(self) -> int:
        """Memory cap in bytes.

        Raises:
            BaechiError: B303 while the cap is still a fraction.
        """
        if self.memory_bytes is None:
            raise BaechiError("B303", f"the memory of device '{self.name}' is not known yet")
        return self.memory_bytes


@dataclass(frozen=True, slots=True)
class Link:
    """A connection: a transfer takes ``latency_seconds + nbytes / bytes_per_second``."""

    latency_seconds: float = 0.0
    bytes_per_second: float = float("inf")

    def seconds(self, nbytes: float) -> float:
        """Time of one transfer alone on the link."""
        return self.latency_seconds + nbytes / self.bytes_per_second


@dataclass(frozen=True, eq=False)
class Cluster:
    """Devices and how they are joined.

    Args:
        devices: in the order in which ties between them are broken.
        link: the link between any two devices that `links` does not name.
        links: links by (source, destination) device name.
        contention: ``sequential`` one transfer at a time per device, ``duplex`` one each way,
            ``parallel`` no limit.
        cores: processor cores of a host that its devices share, by host; a host that is not named
            never slows its devices.

    Example:
        >>> cluster = Cluster((Device("a", 8), Device("b", 8)), Link(1e-6, 1e9))
        >>> cluster.link_between("a", "b").seconds(1000)
        2e-06
    """

    devices: tuple[Device, ...]
    link: Link = Link()
    links: Mapping[tuple[str, str], Link] = field(default_factory=dict)
    contention: Contention = "duplex"
    cores: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.devices:
            raise BaechiError("B304", "a cluster needs at least one device")
        if len(self.device) != len(self.devices):
            raise BaechiError("B304", "two devices of the cluster have one name")
        if self.contention not in CONTENTIONS:
            raise BaechiError(
                "B304", f"contention '{self.contention}' is unknown", help="one of " + ", ".join(CONTENTIONS)
            )
        for device in self.devices:
            if device.memory_bytes is not None and not 0 < device.memory_bytes <= UNLIMITED_BYTES:
                raise BaechiError("B304", f"device '{device.name}' has {device.memory_bytes} bytes of memory")
            rates = (device.speed, device.efficiency, device.bytes_per_second, *device.flops_per_second.values())
            if device.threads < 1:
                raise BaechiError("B304", f"device '{device.name}' has {device.threads} threads")
            if not (all(rate > 0 for rate in rates) and 0 <= device.launch_seconds < math.inf):
                raise BaechiError("B304", f"device '{device.name}' has a rate that is not above 0")
            if not device.host_bytes_per_second >= 0:
                raise BaechiError("B304", f"device '{device.name}' has a link to its host that is below 0")
        for link in (self.link, *self.links.values()):
            if not (0 <= link.latency_seconds < math.inf and link.bytes_per_second > 0):
                raise BaechiError("B304", f"{link} is no link", help="a latency of at least 0, a bandwidth above 0")
        for pair in self.links:
            for name in pair:
                if name not in self.device:
                    raise BaechiError("B304", f"a link names '{name}', which is no device")

    def __len__(self) -> int:
        return len(self.devices)

    @cached_property
    def device(self) -> dict[str, Device]:
        """Devices by name."""
        return {d.name: d for d in self.devices}

    def link_between(self, source: str, destination: str) -> Link:
        """The link from one device to another."""
        return self.links.get((source, destination), self.link)

    def resolve(self, peak_bytes: int) -> "Cluster":
        """Turn memory fractions into bytes: fractions of a step's single-device peak."""
        devices = tuple(
            d
            if d.memory_fraction is None
            else replace(d, memory_bytes=max(1, int(peak_bytes * d.memory_fraction)), memory_fraction=None)
            for d in self.devices
        )
        return replace(self, devices=devices)

    @property
    def needs_peak(self) -> bool:
        """Whether some device's memory is still a fraction."""
        return any(d.memory_fraction is not None for d in self.devices)

    @cached_property
    def digest(self) -> str:
        """A hash of all that a plan depends on."""
        return hashlib.sha256(repr(self.to_dict()).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """The cluster as plain data, the shape of its TOML file."""
        infinite = float("inf")

        def plain(values: dict[str, Any]) -> dict[str, Any]:
            return {k: v for k, v in values.items() if v is not None and v is not False and v != infinite and v != {}}

        devices = [plain(asdict(d)) for d in self.devices]
        data: dict[str, Any] = {"contention": self.contention, "link": plain(asdict(self.link))}
        if self.cores:
            data["cores"] = dict(self.cores)
        data["device"] = devices
        if self.links:
            data["links"] = [
                {"source": s, "destination": d, **plain(asdict(link))} for (s, d), link in self.links.items()
            ]
        return data
