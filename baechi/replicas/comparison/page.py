"""A race as one HTML file that asks nothing of a network, and is not allowed to."""

from pathlib import Path

from baechi.files import write_atomic
from baechi.replicas.comparison.charts import race_item
from baechi.replicas.comparison.race import Race
from baechi.replicas.comparison.table import Row, rows_of
from baechi.report.page.simple import TARGET, Table, simple_html
from baechi.units import format_bytes, format_seconds

__all__ = ["race_html", "write_race"]


def write_race(race: Race, path: str | Path) -> None:
    """Write the page.

    Args:
        race: what it is about.
        path: of the HTML file, which is written whole or not at all.

    Raises:
        BaechiError: B404 when it cannot be written.
    """
    write_atomic(path, race_html(race))


def race_html(race: Race) -> str:
    """The page as text."""
    rows = rows_of(race)
    header = ("method", "steps", "sent by a worker", f"times less a step than {rows[0].label}", "time")
    table = Table("At the end of the budget", (*header, "loss", "accuracy", "expected loss"), [_cells(r) for r in rows])
    title = f"{len(race.labels)} methods on {race.problem}"
    return simple_html(title, _lines(race), race_item(race, TARGET), [table])


def _lines(race: Race) -> list[str]:
    budget, costs, seeds = race.budget, race.costs, len({curve.seed for curve in race.curves})
    until = f"{budget.steps} local steps"
    if budget.nbytes is not None:
        until += f" or {format_bytes(budget.nbytes)} sent by a worker"
    if budget.seconds is not None:
        until += f" or {format_seconds(budget.seconds)}"
    gradient, wire, wait = (
        format_seconds(costs.step_seconds),
        format_bytes(costs.bytes_per_second),
        format_seconds(costs.latency),
    )
    model = (
        f"Cost model: a gradient takes {gradient}, a wire carries {wire} a second, a message waits {wait}; twice its "
    )
    model += "bytes for a mean, everybody's for a gather, its own to each peer for gossip."
    key = "Lines are means over seeds, bands reach from the least to the most, dashed lines are what theory expects. "
    key += "Click a name to hide its line."
    return [f"{race.workers} workers, {seeds} {'seed' if seeds == 1 else 'seeds'}; until {until}.", model, key]


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.label,
        f"{row.steps:.0f}",
        format_bytes(row.nbytes),
        "" if row.ratio is None else f"{row.ratio:.1f}",
        format_seconds(row.seconds),
        "{:.4g} ± {:.2g}".format(*row.loss) if row.loss else "diverged",
        "{:.4f} ± {:.4f}".format(*row.accuracy) if row.accuracy else "",
        "" if row.expected is None else f"{row.expected:.4g}",
    )
