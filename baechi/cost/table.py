"""Measured op times, by device type and op key."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["CostTable"]


@dataclass(frozen=True)
class CostTable:
    """Times that were measured, which override the roofline.

    Args:
        seconds: by device type, then by `Op.key`.

    Example:
        >>> table = CostTable({"cpu": {"aten.relu [8] float32": 2e-6}})
        >>> table.get("cpu", "aten.relu [8] float32"), table.get("cpu", "aten.mm")
        (2e-06, None)
    """

    seconds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def get(self, device_type: str, key: str) -> float | None:
        """The measured time, or None."""
        return self.seconds.get(device_type, {}).get(key)

    def updated(self, device_type: str, seconds: Mapping[str, float]) -> "CostTable":
        """This table with more times, the new ones winning."""
        merged = {**self.seconds.get(device_type, {}), **seconds}
        return CostTable({**self.seconds, device_type: merged})

    def merged(self, seconds: Mapping[str, Mapping[str, float]]) -> "CostTable":
        """This table with more times of several device types, the new ones winning."""
        table = self
        for kind, times in seconds.items():
            table = table.updated(kind, times)
        return table
