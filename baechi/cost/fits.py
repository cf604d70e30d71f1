"""What was fitted to measurements of a cluster: rates of its devices and links, and the cluster that has them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from baechi.cost.fit import Fit
from baechi.ir.cluster import Cluster, Device, Link

__all__ = ["ClusterFits", "DeviceFits"]


@dataclass(frozen=True, slots=True)
class DeviceFits:
    """Of one device.

    Attributes:
        compute: of matrix products, in FLOPs, by kind of arithmetic.
        memory: of an element-wise op, in bytes read and written; its least time is that of any op.
        host: of a copy from the memory of its machine, in bytes; None where that is its own.
    """

    compute: Mapping[str, Fit]
    memory: Fit
    host: Fit | None = None

    def named(self) -> dict[str, Fit]:
        """By name: ``float32`` and the like, ``memory`` and ``host``."""
        return {**self.compute, "memory": self.memory} | ({} if self.host is None else {"host": self.host})

    def applied(self, device: Device) -> Device:
        """The device with these rates; those of a processor's core count for each of its threads."""
        return replace(
            device,
            flops_per_second={kind: device.threads * fit.rate for kind, fit in self.compute.items()},
            bytes_per_second=self.memory.rate,
            host_bytes_per_second=device.host_bytes_per_second if self.host is None else self.host.rate,
            launch_seconds=self.memory.least_seconds,
            efficiency=1.0,
        )


@dataclass(frozen=True, slots=True)
class ClusterFits:
    """Of a cluster.

    Attributes:
        devices: by name; virtual devices of one processor have the same.
        link: of a tensor from one device to another, in bytes, where all pairs are alike; None where that is not known.
        links: by source and destination, where each pair was measured.
    """

    devices: Mapping[str, DeviceFits]
    link: Fit | None = None
    links: Mapping[tuple[str, str], Fit] = field(default_factory=dict)

    def applied(self, cluster: Cluster) -> Cluster:
        """The cluster with what was measured instead of what was assumed; its caps stay.

        A pair that was not measured has a link as slow as the slowest that was.

        Args:
            cluster: of which some devices were measured.
        """
        found = [_link(fit) for fit in (*self.links.values(), *([] if self.link is None else [self.link]))]
        devices = tuple(self.devices[d.name].applied(d) if d.name in self.devices else d for d in cluster.devices)
        slowest = cluster.link
        if found:
            slowest = Link(max(k.latency_seconds for k in found), min(k.bytes_per_second for k in found))
        links = {ends: _link(fit) for ends, fit in self.links.items()}
        return replace(cluster, devices=devices, link=slowest, links=links if found else cluster.links)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        data: dict[str, Any] = {
            "devices": {d: {k: asdict(f) for k, f in fits.named().items()} for d, fits in self.devices.items()}
        }
        if self.link is not None:
            data["link"] = asdict(self.link)
        if self.links:
            data["links"] = [{"source": s, "destination": d, **asdict(f)} for (s, d), f in self.links.items()]
        return data


def _link(fit: Fit) -> Link:
    return Link(fit.least_seconds, fit.rate)
