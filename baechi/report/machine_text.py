"""Devices and this machine's state as a person reads them."""

from collections.abc import Sequence

from baechi.presets import Preset
from baechi.profile.health import Finding
from baechi.profile.machine import Machine
from baechi.report.layout import WIDTH, fields, table
from baechi.units import format_bytes, format_count, format_seconds

__all__ = ["devices_text", "doctor_text"]


def devices_text(presets: Sequence[Preset], machine: Machine) -> str:
    """The presets and this machine's processor."""
    rows: list[tuple[str, ...]] = [("name", "device", "memory", "TFLOPS", "mem GB/s", "link GB/s")]
    for p in presets:
        rates = p.flops_per_second.get("float32", 0.0) / 1e12, p.bytes_per_second / 1e9, p.link.bytes_per_second / 1e9
        rows.append((p.name, p.title, format_bytes(p.memory_bytes), *(f"{rate:.3g}" for rate in rates)))
    facts = [
        ("compute", f"{format_count(machine.flops_per_second)}FLOP/s float32 a core, {machine.cores} cores"),
        ("memory", f"{_per_second(machine.bytes_per_second)} a core"),
        ("launch", f"{format_seconds(machine.launch_seconds)} an op"),
        ("copy", f"{_per_second(machine.copy_bytes_per_second)} between two virtual devices"),
        ("hand-over", f"{format_seconds(machine.handoff_seconds)} from thread to thread"),
    ]
    return (
        "\n".join([*table(rows, "<<>>>>"), "", "float32, dense; this machine, as in local and 4x8GiB:", *fields(facts)])
        + "\n"
    )


def _per_second(rate: float) -> str:
    return format_count(rate) + "B/s"


def doctor_text(checks: Sequence[Finding]) -> str:
    """What was looked at, a line each."""
    lines = []
    for check in checks:
        mark = {True: "ok", False: "BAD", None: "-"}[check.good]
        line = f"{mark:<4} {check.name:<10} {check.found}"
        lines.append(line if len(line) <= WIDTH else line[: WIDTH - 3] + "...")
        if check.help and check.good is not True:
            lines.append(f"                {check.help}")
    return "\n".join(lines) + "\n"
