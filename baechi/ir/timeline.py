"""What happens when in one step: filled by the simulator and by the profiler alike."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from baechi.errors import BaechiError

if TYPE_CHECKING:
    import pandas

__all__ = ["OpSpan", "Timeline", "TransferSpan"]


@dataclass(frozen=True, slots=True)
class OpSpan:
    """One op's run on one device; times in seconds since the step began."""

    op: str
    device: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class TransferSpan:
    """One tensor's way from one device to another; times in seconds since the step began."""

    tensor: str
    source: str
    destination: str
    start: float
    end: float
    nbytes: int


@dataclass(frozen=True, eq=False)
class Timeline:
    """One step on a cluster.

    Args:
        ops: sorted by start.
        transfers: sorted by start.
        memory: by device, (seconds, bytes) at each change, the first at 0.0 with what persists.
    """

    ops: tuple[OpSpan, ...]
    transfers: tuple[TransferSpan, ...] = ()
    memory: Mapping[str, tuple[tuple[float, int], ...]] = field(default_factory=dict)

    @cached_property
    def step_seconds(self) -> float:
        """The makespan."""
        return max([*(s.end for s in self.ops), *(s.end for s in self.transfers)], default=0.0)

    @cached_property
    def peak_bytes(self) -> dict[str, int]:
        """The highest point of each device's memory curve."""
        return {d: max((b for _, b in curve), default=0) for d, curve in self.memory.items()}

    @cached_property
    def busy_seconds(self) -> dict[str, float]:
        """Time that each device computes."""
        busy = dict.fromkeys(self.memory, 0.0)
        for span in self.ops:
            busy[span.device] = busy.get(span.device, 0.0) + span.end - span.start
        return busy

    @cached_property
    def span(self) -> dict[str, OpSpan]:
        """Spans by op name."""
        return {s.op: s for s in self.ops}

    def to_pandas(self) -> "pandas.DataFrame":
        """A row for each op and each transfer, by start.

        Columns: ``what`` (``op`` or ``transfer``), ``name``, ``device`` (of a transfer where it arrives), ``source``
        (of a transfer, else empty), ``start``, ``end`` and ``seconds`` in seconds, ``nbytes``.

        Raises:
            BaechiError: B411 when pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError:
            raise BaechiError("B411", "pandas is not installed", help="pip install pandas") from None
        ops = [("op", s.op, s.device, "", s.start, s.end, 0) for s in self.ops]
        sent = [("transfer", s.tensor, s.destination, s.source, s.start, s.end, s.nbytes) for s in self.transfers]
        columns = ["what", "name", "device", "source", "start", "end", "nbytes"]
        frame = pandas.DataFrame([*ops, *sent], columns=columns)
        frame.insert(6, "seconds", frame["end"] - frame["start"])
        return frame.sort_values("start", kind="stable", ignore_index=True)
