"""Devices and this machine's state as a person reads them."""

from collections.abc import Sequence

from baechi.cost.fit import Fit
from baechi.cost.fits import ClusterFits
from baechi.presets import Preset
from baechi.profile.health import Finding
from baechi.profile.machine import Machine
from baechi.report.layout import WIDTH, fields, table
from baechi.units import format_bytes, format_count, format_seconds

__all__ = ["devices_text", "doctor_text", "fits_text"]


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
        (
            "send",
            f"{_per_second(machine.wire_bytes_per_second)} and {format_seconds(machine.wire_seconds)} to a process",
        ),
    ]
    return (
        "\n".join([*table(rows, "<<>>>>"), "", "float32, dense; this machine, as in local and 4x8GiB:", *fields(facts)])
        + "\n"
    )


def fits_text(fits: ClusterFits) -> str:
    """What was fitted, with its standard errors and how far the points are off; devices of the same rates share rows."""
    rows: list[tuple[str, ...]] = [("", "fit", "rate", "+-", "least", "+-", "points off")]
    alike: dict[int, list[str]] = {}
    for name, found in fits.devices.items():
        alike.setdefault(id(found), []).append(name)
    for names in alike.values():
        label = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        for what, fit in fits.devices[names[0]].named().items():
            unit = "FLOP/s" if what in fits.devices[names[0]].compute else "B/s"
            rows.append((label, what, *_fit_cells(fit, unit)))
            label = ""
    if fits.link is not None:
        rows.append(("each pair", "link", *_fit_cells(fits.link, "B/s")))
    rows += [(f"{s} to {d}", "link", *_fit_cells(fit, "B/s")) for (s, d), fit in fits.links.items()]
    return "\n".join(table(rows, "<<>>>>>")) + "\n"


def _fit_cells(fit: Fit, unit: str) -> tuple[str, ...]:
    least = format_seconds(fit.least_seconds), format_seconds(fit.least_error)
    return (format_count(fit.rate) + unit, f"{fit.rate_error:.1%}", *least, f"{fit.residual:.1%}")


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
