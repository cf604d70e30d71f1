"""A run of replicas or of clusters as a page: losses, version ages beside the law, exchanges, who refused what."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bokeh.core.types import ID
from bokeh.embed import json_item
from bokeh.layouts import gridplot
from bokeh.models import HoverTool
from bokeh.plotting import figure

from baechi.files import write_atomic
from baechi.replicas.cluster.crew_outcome import CREW_CELLS, crew_cells, crew_summary
from baechi.replicas.cluster.outcome import CELLS, cells, summary
from baechi.report.page.palette import colour_of
from baechi.report.page.simple import TARGET, Table, simple_html

__all__ = ["run_html", "write_run"]

_WIDTH, _HEIGHT = 620, 320
_MOST_POINTS = 500
_TOOLS = "pan,box_zoom,wheel_zoom,save,reset"


def write_run(data: Mapping[str, Any], path: str | Path) -> None:
    """Write the page of a run.

    Args:
        data: what ``baechi replicas -o`` wrote.
        path: of the HTML file, which is written whole or not at all.

    Raises:
        BaechiError: B404 when it cannot be written.
    """
    write_atomic(path, run_html(data))


def run_html(data: Mapping[str, Any]) -> str:
    """The page as text."""
    if "clusters" in data:
        return _clusters_html(data)
    rows = data["replicas"]
    curves = [(f"replica {row['replica']}", row["losses"]) for row in rows]
    grid = gridplot(
        [[_losses(curves), _ages(rows)], [_rates(rows), _delays(data["exchange_seconds"])]],
        toolbar_location="above",
        merge_tools=True,
        toolbar_options={"logo": None},
    )
    tables = [Table("Replicas", CELLS, [cells(row) for row in rows])]
    refused = [
        (str(row["replica"]), sender, why, f"{count:,}")
        for row in rows
        for sender, reasons in sorted(row["refused_by_peer"].items())
        for why, count in sorted(reasons.items())
    ]
    if refused:
        tables.append(Table("Messages without effect", ("replica", "from", "why", "how many"), refused))
    return simple_html(f"{len(rows)} replicas that gossip", summary(data), dict(json_item(grid, ID(TARGET))), tables)


def _clusters_html(data: Mapping[str, Any]) -> str:
    """Of a run of clusters: losses and paces of each, and how busy its peers were."""
    clusters, peers = data["clusters"], [row for row in data["peers"] if row["stage"] is not None]
    names = [f"cluster {one['cluster'] + 1}" for one in clusters]
    losses = _losses([(name, one["losses"]) for name, one in zip(names, clusters, strict=True)])
    paces = _bars("micro-batches a second", names, [one["microbatches_per_second"] for one in clusters], 1)
    busy = _bars("share of the time", [row["peer"] for row in peers], [row["busy"] for row in peers], 2)
    grid = gridplot([[losses, paces], [busy, None]], toolbar_location="above", toolbar_options={"logo": None})
    tables = [Table("Peers", CREW_CELLS, [crew_cells(row) for row in data["peers"]])]
    faults = [(row["peer"], row["error"]) for row in data["peers"] if row["error"]]
    if faults:
        tables.append(Table("What went wrong", ("peer", "error"), faults))
    title = f"{len(clusters)} clusters that hold one model each"
    return simple_html(title, crew_summary(data), dict(json_item(grid, ID(TARGET))), tables)


def _bars(what: str, names: Sequence[str], values: Sequence[float], colour: int) -> figure:
    made = _figure("", what, x_range=list(names))
    made.vbar(list(names), top=list(values), width=0.7, color=colour_of(colour))
    return made


def _losses(curves: Sequence[tuple[str, Sequence[Any]]]) -> figure:
    made = _figure("step", "loss")
    for n, (name, losses) in enumerate(curves):
        points = [(step, loss) for step, loss in losses if loss is not None]
        width = max(1, len(points) // _MOST_POINTS)
        if points:
            x, y = (_means(np.array(column, dtype=float), width) for column in zip(*points, strict=True))
            made.line(x, y, color=colour_of(n), legend_label=name, line_width=1.5)
    if made.legend:
        made.legend.click_policy = "hide"
    return made


def _means(values: np.ndarray, width: int) -> list[float]:
    """The means of stretches of so many."""
    whole = len(values) // width * width
    return [float(v) for v in values[:whole].reshape(-1, width).mean(axis=1)]


def _ages(rows: Sequence[Mapping[str, Any]]) -> figure:
    made = _figure("replica", "updates that the others miss")
    x = [row["replica"] for row in rows]
    made.vbar(x, top=[row["version_age"] for row in rows], width=0.7, color=colour_of(0), legend_label="seen")
    known = [row for row in rows if row["law"] is not None]
    if known:
        expected = [row["law"] for row in known]
        made.scatter(
            [row["replica"] for row in known], expected, size=40, marker="dash", color="black", legend_label="law"
        )
    made.xaxis.ticker = x
    return made


def _rates(rows: Sequence[Mapping[str, Any]]) -> figure:
    made = _figure("replica", "steps a second")
    x = [row["replica"] for row in rows]
    made.vbar(x, top=[row["steps_per_second"] for row in rows], width=0.7, color=colour_of(1))
    made.xaxis.ticker = x
    return made


def _delays(delays: Sequence[float]) -> figure:
    made = _figure("milliseconds there and back", "exchanges")
    if delays:
        counts, edges = np.histogram(1e3 * np.array(delays), bins=40)
        made.quad(top=counts.tolist(), bottom=0, left=edges[:-1].tolist(), right=edges[1:].tolist(), color=colour_of(2))
    return made


def _figure(x: str, y: str, **options: Any) -> figure:
    made = figure(width=_WIDTH, height=_HEIGHT, x_axis_label=x, y_axis_label=y, tools=_TOOLS, **options)
    tips = [(y, "@top{0,0.[0000]}")] if options else [(x, "$x{0,0.[0]}"), (y, "$y{0,0.[0000]}")]
    made.add_tools(HoverTool(tooltips=tips))
    return made
