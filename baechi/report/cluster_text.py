"""A measured cluster as a TOML file, with the errors of what was fitted."""

from collections.abc import Mapping
from typing import Any

from baechi.cost.fit import Fit
from baechi.ir.cluster import Cluster

__all__ = ["cluster_toml"]


def cluster_toml(cluster: Cluster, fits: Mapping[str, Fit], head: str = "") -> str:
    """The file that `parse_cluster` reads back as the same cluster.

    Args:
        cluster: to write.
        fits: ``compute``, ``memory`` and ``link``, whose errors stand beside their rates.
        head: a comment for the first line.

    Example:
        >>> from baechi.config import parse_cluster
        >>> print(cluster_toml(parse_cluster("1x1GiB"), {}).splitlines()[0])
        contention = "duplex"
    """
    notes = {
        "flops_per_second": _rate_note(fits.get("compute")),
        "bytes_per_second": _rate_note(fits.get("memory")),
        "launch_seconds": _least_note(fits.get("memory")),
    }
    link_notes = {
        "latency_seconds": _least_note(fits.get("link")),
        "bytes_per_second": _rate_note(fits.get("link")),
    }
    data = cluster.to_dict()
    lines = [f"# {head}"] if head else []
    lines.append(f"contention = {_value(data['contention'])}")
    lines += ["", "[link]", *_entries(data["link"], link_notes)]
    if "cores" in data:
        lines += ["", "[cores]", *_entries(data["cores"], {})]
    for device in data["device"]:
        lines += ["", "[[device]]", *_entries(device, notes)]
    for link in data.get("links", ()):
        lines += ["", "[[links]]", *_entries(link, {})]
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


def _rate_note(fit: Fit | None) -> str:
    return "" if fit is None else f"  # +- {fit.rate_error:.1%}; points are {fit.residual:.1%} off the line"


def _least_note(fit: Fit | None) -> str:
    return "" if fit is None else f"  # +- {fit.least_error:.2g}"
