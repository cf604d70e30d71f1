"""All that a page says, as plain data: what is drawn from it adds nothing."""

from dataclasses import dataclass

from baechi.report.explanation import Share
from baechi.report.facts import Traffic
from baechi.report.page.beside import Beside
from baechi.report.page.coarse import Drawing
from baechi.report.page.whatif import WhatIf

__all__ = ["Compared", "DeviceRow", "Fact", "HeldRow", "Hop", "Page", "PeakRow", "StepPage"]


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of the list at the top: what is counted, how much, and in which unit."""

    label: str
    amount: float | str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device in a step.

    Attributes:
        name, type: of the device.
        ops: how many run on it.
        busy_seconds: time in which it computes.
        share: of the step.
        peak_bytes: highest memory.
        cap_bytes: what it has; None when there is no limit.
        sent_bytes, received_bytes: in a step.
    """

    name: str
    type: str
    ops: int
    busy_seconds: float
    share: float
    peak_bytes: int
    cap_bytes: int | None
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True, slots=True)
class Hop:
    """An op or a transfer of the critical path.

    Attributes:
        name: of the op or the tensor.
        kind: of the op; ``transfer``.
        where: the device, or both.
        module, source: of the op.
        start, seconds: when, and how long.
    """

    name: str
    kind: str
    where: str
    module: str
    source: str
    start: float
    seconds: float


@dataclass(frozen=True, slots=True)
class HeldRow:
    """Something that is in memory at a peak."""

    name: str
    kind: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class PeakRow:
    """A device at its peak, and who holds it.

    Attributes:
        device: which one.
        seconds: when.
        nbytes: how much.
        running: the op that runs then.
        kinds, modules: bytes by kind of memory, and by module.
        largest: single holders.
    """

    device: str
    seconds: float
    nbytes: int
    running: str
    kinds: tuple[Share, ...]
    modules: tuple[Share, ...]
    largest: tuple[HeldRow, ...]


@dataclass(frozen=True, slots=True)
class StepPage:
    """All that is said of one step.

    Attributes:
        name, head: what it is called, and what it is.
        verdict: sentences.
        facts: numbers of the whole.
        devices: one row each.
        path: seconds of the critical path by what they are spent on.
        hops: its longest ops and transfers.
        bounds: seconds by the name of the proof.
        objective_seconds, gap: what the placer made small, and how far it is above the best bound.
        peaks: of each device.
        traffic: from device to device.
        changes: what if.
        left_out: placers that were not asked, for the graph is large.
        beside: the measured step, if there is one.
        drawing: the graph by module.
        plan: who made it, when it was, with what.
    """

    name: str
    head: str
    verdict: tuple[str, ...]
    facts: tuple[Fact, ...]
    devices: tuple[DeviceRow, ...]
    path: tuple[Share, ...]
    hops: tuple[Hop, ...]
    bounds: tuple[Share, ...]
    objective: str
    objective_seconds: float
    gap: float
    peaks: tuple[PeakRow, ...]
    traffic: tuple[Traffic, ...]
    changes: tuple[WhatIf, ...]
    left_out: tuple[str, ...]
    beside: Beside | None
    drawing: Drawing
    step_seconds: float


@dataclass(frozen=True, slots=True)
class Compared:
    """A step in one line among others.

    Attributes:
        name, placer: of the step.
        devices: how many compute.
        step_seconds: as predicted.
        ratio: that over the first step's, less 1.
        measured_seconds: the median of the run, if there is one.
        gap: above the lower bound; None without one.
        compute, transfer, waiting: shares of the critical path.
        fullest: the highest peak over its cap.
        traffic_bytes: sent in a step.
        moved: ops that are on another device than in the first step; None for another graph.
    """

    name: str
    placer: str
    devices: int
    step_seconds: float
    ratio: float
    measured_seconds: float | None
    gap: float | None
    compute: float
    transfer: float
    waiting: float
    fullest: float
    traffic_bytes: int
    moved: int | None


@dataclass(frozen=True, slots=True)
class Page:
    """Steps, and a comparison when there are several."""

    title: str
    steps: tuple[StepPage, ...]
    compared: tuple[Compared, ...]
