"""A race in rows, as text and as data."""

from collections.abc import Mapping, Sequence
from math import isfinite
from statistics import fmean
from typing import Any, NamedTuple

from baechi.replicas.comparison.race import Race, spread
from baechi.units import format_bytes, format_seconds

__all__ = ["Row", "race_to_dict", "race_to_text", "rows_of"]


class Row(NamedTuple):
    """A method at the end, over its seeds.

    Attributes:
        label: of the method.
        steps: local steps of each worker.
        nbytes: sent by a worker.
        ratio: how many times fewer bytes in a step than the first method; None where one sends nothing.
        seconds: of the virtual clock.
        loss: mean and standard deviation; None when a run diverged.
        accuracy: likewise; None where nothing is classified.
        expected: the loss by theory, where there is one.
    """

    label: str
    steps: float
    nbytes: float
    ratio: float | None
    seconds: float
    loss: tuple[float, float] | None
    accuracy: tuple[float, float] | None
    expected: float | None


def rows_of(race: Race) -> tuple[Row, ...]:
    """A row for each method."""
    rows: list[Row] = []
    for label in race.labels:
        ends = [curve.points[-1] for curve in race.of(label)]
        losses = [end.loss for end in ends if end.loss is not None]
        accuracies = [end.accuracy for end in ends if end.accuracy is not None]
        steps, nbytes = fmean(end.step for end in ends), fmean(end.nbytes for end in ends)
        first = rows[0] if rows else None
        mine, theirs = nbytes / steps, first.nbytes / first.steps if first else nbytes / steps
        expected = [curve.expected[-1] for curve in race.of(label) if curve.expected]
        rows.append(
            Row(
                label,
                steps,
                nbytes,
                theirs / mine if mine else None,
                fmean(end.seconds for end in ends),
                spread(losses) if len(losses) == len(ends) else None,
                spread(accuracies) if accuracies and len(losses) == len(ends) else None,
                fmean(expected) if expected and isfinite(fmean(expected)) else None,
            )
        )
    return tuple(rows)


def race_to_text(race: Race) -> str:
    """A table to read."""
    rows = rows_of(race)
    head = ["method", "steps", "bytes/worker", f"x less than {rows[0].label}", "seconds", "loss"]
    has_accuracy = any(row.accuracy for row in rows)
    has_theory = any(row.expected is not None for row in rows)
    head += ["accuracy"] * has_accuracy + ["expected loss"] * has_theory
    table = [head]
    for row in rows:
        cells = [row.label, f"{row.steps:.0f}", format_bytes(row.nbytes)]
        cells += [f"{row.ratio:.1f}" if row.ratio is not None else "-", format_seconds(row.seconds)]
        cells += [f"{row.loss[0]:.4g} ± {row.loss[1]:.2g}" if row.loss else "diverged"]
        if has_accuracy:
            cells.append(f"{row.accuracy[0]:.4f} ± {row.accuracy[1]:.4f}" if row.accuracy else "-")
        if has_theory:
            cells.append(f"{row.expected:.4g}" if row.expected is not None else "-")
        table.append(cells)
    return _aligned(table)


def race_to_dict(race: Race) -> dict[str, Any]:
    """All there is, for JSON."""
    return {
        "problem": race.problem,
        "workers": race.workers,
        "budget": {"steps": race.budget.steps, "bytes": race.budget.nbytes, "seconds": race.budget.seconds},
        "costs": {
            "step_seconds": race.costs.step_seconds,
            "bytes_per_second": race.costs.bytes_per_second,
            "latency": race.costs.latency,
        },
        "methods": [_row_to_dict(row) for row in rows_of(race)],
        "curves": [
            {
                "label": curve.entry.label,
                "method": curve.entry.method,
                "options": _plain(curve.entry.options),
                "seed": curve.seed,
                "diverged": curve.diverged,
                "step": [point.step for point in curve.points],
                "bytes": [point.nbytes for point in curve.points],
                "seconds": [point.seconds for point in curve.points],
                "loss": [point.loss for point in curve.points],
                "accuracy": [point.accuracy for point in curve.points],
                "expected_loss": [loss if isfinite(loss) else None for loss in curve.expected],
            }
            for curve in race.curves
        ],
    }


def _row_to_dict(row: Row) -> dict[str, Any]:
    data = {"label": row.label, "steps": row.steps, "bytes": row.nbytes, "ratio": row.ratio, "seconds": row.seconds}
    for name, value in (("loss", row.loss), ("accuracy", row.accuracy)):
        data[name] = value[0] if value else None
        data[f"{name}_spread"] = value[1] if value else None
    return data | {"expected_loss": row.expected}


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def _aligned(table: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[n]) for row in table) for n in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [
            cell.ljust(w) if n == 0 else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
