"""Loss, and accuracy, against steps, bytes and seconds, as linked Bokeh figures."""

from collections.abc import Sequence
from math import isfinite
from statistics import fmean
from typing import Any, NamedTuple

from bokeh.core.types import ID
from bokeh.embed import json_item
from bokeh.layouts import gridplot
from bokeh.models import ColumnDataSource, HoverTool
from bokeh.models.annotations import Legend, LegendItem
from bokeh.plotting import figure

from baechi.replicas.comparison.race import Curve, Race
from baechi.report.page.palette import colour_of

__all__ = ["race_item"]

_ACROSS = (("step", "local steps"), ("nbytes", "bytes sent by a worker"), ("seconds", "seconds, by the cost model"))
_WIDTH, _HEIGHT, _SHADE = 400, 320, 0.18


class _Line(NamedTuple):
    """Means over seeds, and the least and the most."""

    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]


def race_item(race: Race, target: str) -> dict[str, Any]:
    """What ``Bokeh.embed.embed_item`` takes.

    Args:
        race: what is drawn: for each method a line of the means over seeds in the band of all, dashed by theory.
        target: the id of the element that it goes into.
    """
    whats = ["loss"] + ["accuracy"] * any(p.accuracy is not None for c in race.curves for p in c.points)
    rows: list[list[Any]] = [[_figure(race, what, field, label) for field, label in _ACROSS] for what in whats]
    grid = gridplot(rows, toolbar_location="above", merge_tools=True, toolbar_options={"logo": None})
    return dict(json_item(grid, ID(target)))


def _figure(race: Race, what: str, field: str, label: str) -> figure:
    is_loss = what == "loss" and all(p.loss is None or p.loss > 0 for c in race.curves for p in c.points)
    made = figure(
        width=_WIDTH,
        height=_HEIGHT,
        x_axis_label=label,
        y_axis_label="loss on held-out data" if what == "loss" else "accuracy there",
        x_axis_type="log" if field == "nbytes" else "linear",
        y_axis_type="log" if is_loss else "linear",
        tools="pan,box_zoom,wheel_zoom,save,reset",
    )
    items = []
    for n, name in enumerate(race.labels):
        lines = _draw(made, race.of(name), what, field, colour_of(n), name)
        if lines:
            items.append(LegendItem(label=name, renderers=lines))
    if field == "step":
        made.add_layout(
            Legend(items=items, click_policy="hide", label_text_font_size="11px", background_fill_alpha=0.6)
        )
    hover = HoverTool(tooltips=[("", "@name"), (label, "@x{0,0.[000]}"), (what, "@y{0.0000}")], attachment="above")
    made.add_tools(hover)
    return made


def _draw(made: figure, curves: Sequence[Curve], what: str, field: str, colour: str, name: str) -> list[Any]:
    line = _line(curves, what, field)
    if not line.x:
        return []
    source = ColumnDataSource({**line._asdict(), "name": [name] * len(line.x)})
    drawn: list[Any] = [made.line("x", "y", source=source, color=colour, line_width=2)]
    if len(curves) > 1:
        drawn.append(made.varea("x", "low", "high", source=source, fill_color=colour, fill_alpha=_SHADE))
    if what == "loss" and all(curve.expected for curve in curves):
        theory = [fmean(values) for values in zip(*(curve.expected for curve in curves), strict=False)]
        x = _x(curves, field)
        kept = [(a, b) for a, b in zip(x, theory, strict=False) if isfinite(b) and (field != "nbytes" or a > 0)]
        xs, ys = [a for a, _ in kept], [b for _, b in kept]
        drawn.append(made.line(xs, ys, color=colour, line_width=2, line_dash="dashed", alpha=0.8))
    return drawn


def _line(curves: Sequence[Curve], what: str, field: str) -> _Line:
    """Point by point over the seeds, up to where the shortest ends; a logarithmic axis has no 0."""
    line = _Line([], [], [], [])
    for x, points in zip(_x(curves, field), zip(*(curve.points for curve in curves), strict=False), strict=False):
        values = [getattr(point, what) for point in points]
        if any(value is None for value in values) or (x <= 0 and field == "nbytes"):
            continue
        for column, value in zip(line, (x, fmean(values), min(values), max(values)), strict=True):
            column.append(value)
    return line


def _x(curves: Sequence[Curve], field: str) -> list[float]:
    return [fmean(getattr(p, field) for p in points) for points in zip(*(c.points for c in curves), strict=False)]
