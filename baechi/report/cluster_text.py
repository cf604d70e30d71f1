"""A measured cluster as a TOML file, with the errors of what was fitted."""

from collections.abc import Mapping
from typing import Any

from baechi.cost.fit import Fit
from baechi.cost.fits import ClusterFits, DeviceFits
from baechi.ir.cluster import Cluster

__all__ = ["cluster_toml"]


def cluster_toml(cluster: Cluster, fits: ClusterFits, head: str = "") -> str:
    """The file that `parse_cluster` reads back as the same cluster.

    Args:
        cluster: to write.
        fits: whose errors stand beside their rates.
        head: a comment for the first line.

    Example:
        >>> from baechi.config import parse_cluster
        >>> print(cluster_toml(parse_cluster("1x1GiB"), ClusterFits({})).splitlines()[0])
        contention = "duplex"
    """
    data = cluster.to_dict()
    lines = [f"# {head}"] if head else []
    lines.append(f"contention = {_value(data['contention'])}")
    lines += ["", "[link]", *_entries(data["link"], _link_notes(fits.link))]
    if "cores" in data:
        lines += ["", "[cores]", *_entries(data["cores"], {})]
    for device in data["device"]:
        lines += ["", "[[device]]", *_entries(device, _device_notes(fits.devices.get(device["name"])))]
    for link in data.get("links", ()):
        lines += ["", "[[links]]", *_entries(link, _link_notes(fits.links.get((link["source"], link["destination"]))))]
    return "\n".join(lines) + "\n"


def _entries(table: Mapping[str, Any], notes: Mapping[str, str]) -> list[str]:
    return [f"{key} = {_value(value)}{notes.get(key, '')}" for key, value in table.items()]


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(v)}" for key, v in value.items()) + " }"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)


def _device_notes(fits: DeviceFits | None) -> dict[str, str]:
    if fits is None:
        return {}
    several = len(fits.compute) > 1
    rates = [_error(fit) + f" in {kind}" * several for kind, fit in fits.compute.items()]
    notes = {
        "flops_per_second": f"  # {'; '.join(rates)}",
        "bytes_per_second": _rate_note(fits.memory),
        "launch_seconds": _least_note(fits.memory),
    }
    return notes if fits.host is None else notes | {"host_bytes_per_second": _rate_note(fits.host)}


def _link_notes(fit: Fit | None) -> dict[str, str]:
    return {} if fit is None else {"latency_seconds": _least_note(fit), "bytes_per_second": _rate_note(fit)}


def _rate_note(fit: Fit) -> str:
    return f"  # {_error(fit)}"


def _error(fit: Fit) -> str:
    return f"+- {fit.rate_error:.1%}; points are {fit.residual:.1%} off the line"


def _least_note(fit: Fit) -> str:
    return f"  # +- {fit.least_error:.2g}"
