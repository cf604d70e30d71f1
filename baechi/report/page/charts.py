"""The timeline and the memory of a step as linked Bokeh figures.

Figures, sources and renderers that the page's own script looks for have names; it puts into the sources what can
be told apart at the width of the screen, again whenever the time axis moves. No callback is compiled in the
browser, for the page forbids that.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bokeh.core.types import ID
from bokeh.embed import json_item
from bokeh.layouts import gridplot
from bokeh.models import (
    BoxZoomTool,
    ColumnDataSource,
    FixedTicker,
    HBar,
    HoverTool,
    LinearColorMapper,
    PanTool,
    Range1d,
    ResetTool,
    SaveTool,
    TapTool,
    WheelZoomTool,
)
from bokeh.plotting import figure
from bokeh.resources import Resources

from baechi.ir.cluster import UNLIMITED_BYTES, Cluster
from baechi.report.page.columns import Words, chart_columns
from baechi.report.page.palette import CAP, CRITICAL, PHASES, TRANSFER, colour_of
from baechi.report.page.spans import Chart
from baechi.units import format_bytes

__all__ = ["bokeh_script", "charts_item"]

_MOST_MEMORY_CHARTS = 8  # the fullest; the tables have all
_ROW_PIXELS, _MARGIN_PIXELS, _MEMORY_PIXELS = 34, 44, 130
_CAP_IN_SIGHT = 4.0  # a cap so many times above the peak would press the curve flat
_TICK_PIXELS = 80
_UNITS = ((1.0, "s"), (1e3, "ms"), (1e6, "us"), (1e9, "ns"))
_BYTE_UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
_CORNERS: dict[str, Any] = {"left": "left", "right": "right", "y": "y", "height": "height"}
_BAR = ("left", "right", "y", "height", "tone", "name", "kind", "where", "about", "takes", "first", "count")
_HOVER = [("", "@name"), ("kind", "@kind"), ("on", "@where"), ("", "@about"), ("takes", "@takes{0.000}")]


class _MemoryAxis(NamedTuple):
    """The memory of a device: which timelines have it, bytes of a unit and its name, the top, whether the cap is below it."""

    device: str
    kinds: tuple[str, ...]
    scale: int
    unit: str
    top: float
    in_sight: bool


def bokeh_script() -> str:
    """BokehJS as it lies in Bokeh's wheel: the plotting part, without widgets, tables and WebGL."""
    library: str = Resources(mode="inline", components=["bokeh"]).js_raw[
        0
    ]  # what follows it only writes to the console
    return library


def charts_item(number: int, cluster: Cluster, predicted: Chart, measured: Chart | None) -> dict[str, Any]:
    """The figures of one step, without what is in them, and what the page's script puts into them.

    Args:
        number: of the step in the page; it is part of all names.
        cluster: of the plan.
        predicted: its timeline.
        measured: one of a run, below the predicted one and on the same axis.

    Returns:
        ``item``, which ``Bokeh.embed.embed_item`` takes; ``span``, all of the time axis; ``words`` and ``charts`` as of `chart_columns`.
    """
    charts = {"predicted": predicted} | ({} if measured is None else {"measured": measured})
    longest = max(chart.step_seconds for chart in charts.values())
    factor, unit = next(((f, u) for f, u in _UNITS if longest * f >= 1), _UNITS[0])
    x_range = Range1d(start=0, end=longest * factor or 1, name=f"time-{number}", tags=[unit])
    figures = [_timeline(f"{kind}-{number}", kind, chart, x_range, factor, unit) for kind, chart in charts.items()]
    memories = [_memory_axis(name, cluster, charts) for name in _fullest(cluster, predicted)]
    figures += [_memory(axis, number, cluster, x_range, unit) for axis in memories]
    for one in figures[:-1]:
        one.xaxis.axis_label = None
    grid = gridplot(
        [[one] for one in figures],
        sizing_mode="stretch_width",
        toolbar_location="above",
        merge_tools=True,
        toolbar_options={"logo": None},
    )
    words = Words()
    columns = {
        kind: chart_columns(chart, words, factor, {m.device: m.scale for m in memories if kind in m.kinds})
        for kind, chart in charts.items()
    }
    span = [x_range.start, x_range.end]
    item = dict(json_item(grid, ID(f"charts-{number}")))
    return {"item": item, "span": span, "words": words.texts(), "charts": columns}


def _figure(name: str, title: str, height: int, x_range: Range1d, unit: str, **more: Any) -> Any:
    wheel = WheelZoomTool(dimensions="width", modifiers="ctrl")
    made = figure(
        name=name,
        title=title,
        height=height,
        sizing_mode="stretch_width",
        x_range=x_range,
        tools=[PanTool(dimensions="width"), BoxZoomTool(dimensions="width"), wheel, ResetTool(), SaveTool()],
        x_axis_label=f"time ({unit})",
        min_border_left=_TICK_PIXELS,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        **more,
    )
    made.toolbar.active_scroll = wheel
    made.xgrid.grid_line_alpha = made.ygrid.grid_line_alpha = 0.4
    return made


def _timeline(name: str, kind: str, chart: Chart, x_range: Range1d, factor: float, unit: str) -> Any:
    bottom = min((row.y - row.height / 2 for row in chart.rows), default=-1.0)
    height = round(_MARGIN_PIXELS + _ROW_PIXELS * -bottom) + 30
    made = _figure(name, f"timeline, {kind}", height, x_range, unit, y_range=Range1d(start=bottom - 0.2, end=0.2))
    made.ygrid.visible = False
    made.yaxis.ticker = FixedTicker(ticks=[row.y for row in chart.rows])
    made.yaxis.major_label_overrides = {row.y: row.device if row.lane == "ops" else row.lane for row in chart.rows}
    made.yaxis.major_tick_line_color = made.yaxis.minor_tick_line_color = None
    mapper = LinearColorMapper(palette=list(PHASES), low=-0.5, high=len(PHASES) - 0.5)
    ops = _bars(made, f"ops-{name}", {"field": "tone", "transform": mapper})
    copies = _bars(made, f"transfers-{name}", TRANSFER)
    for part in ("ops", "transfers"):
        _bars(made, f"critical-{part}-{name}", CRITICAL)
    xs, ys = [x * factor for x, _ in chart.links], [y for _, y in chart.links]
    made.multi_line(xs, ys, line_color=CRITICAL, line_dash="dotted", name=f"critical-links-{name}")
    _bars(made, f"chosen-{name}", None, line_color="black", line_width=3)
    tips = [(label, text.replace("0.000}", "0.000} " + unit)) for label, text in _HOVER]
    made.add_tools(HoverTool(renderers=[ops, copies], tooltips=tips), TapTool(renderers=[ops, copies]))
    return made


def _bars(made: Any, name: str, colour: Any, **line: Any) -> Any:
    """Bars that look the same selected or not: any other look costs the browser as much as all bars again."""
    bar = HBar(**_CORNERS, fill_color=colour, **({"line_color": None} | line))
    renderer = made.add_glyph(_empty(name, _BAR), bar, selection_glyph=None, nonselection_glyph=None, muted_glyph=None)
    renderer.name = name
    return renderer


def _empty(name: str, columns: Sequence[str]) -> ColumnDataSource:
    return ColumnDataSource({column: [] for column in columns}, name=f"{name}-source")


def _fullest(cluster: Cluster, chart: Chart) -> list[str]:
    """Devices with a curve, in the cluster's order."""
    share = {name: curve.nbytes.max() / cluster.device[name].cap for name, curve in chart.memory.items()}
    shown = sorted(share, key=lambda name: -share[name])[:_MOST_MEMORY_CHARTS]
    return [name for name in cluster.device if name in shown]


def _memory_axis(device: str, cluster: Cluster, charts: Mapping[str, Chart]) -> _MemoryAxis:
    kinds = tuple(kind for kind, chart in charts.items() if device in chart.memory)
    peak, cap = max(float(charts[kind].memory[device].nbytes.max()) for kind in kinds), cluster.device[device].cap
    scale, unit = next(((s, u) for s, u in _BYTE_UNITS if peak >= s), (1, "B"))
    in_sight = cap <= _CAP_IN_SIGHT * max(peak, 1)
    top = 1.08 * max(peak, cap if in_sight else 0) / scale or 1
    return _MemoryAxis(device, kinds, scale, unit, top, in_sight)


def _memory(axis: _MemoryAxis, number: int, cluster: Cluster, x_range: Range1d, unit: str) -> Any:
    device, cap = axis.device, cluster.device[axis.device].cap
    title = f"memory of {device} ({axis.unit})"
    if cap < UNLIMITED_BYTES:
        title += f", cap {format_bytes(cap)}" + ("" if axis.in_sight else " (far above)")
    y_range = Range1d(start=0, end=axis.top)
    made = _figure(f"memory-{device}-{number}", title, _MEMORY_PIXELS, x_range, unit, y_range=y_range)
    colour = colour_of([d.name for d in cluster.devices].index(device))
    for kind in axis.kinds:
        source = _empty(f"memory-{kind}-{number}-{device}", ("x", "y", "zero"))
        if kind == "predicted":
            made.varea_step("x", "zero", "y", source=source, fill_color=colour, fill_alpha=0.25, step_mode="after")
        dash = "solid" if kind == "predicted" else "dashed"
        made.step("x", "y", source=source, mode="after", line_color=colour, line_dash=dash, line_width=1.5)
    if axis.in_sight:
        made.hspan(y=[cap / axis.scale], line_color=CAP, line_width=2, name=f"cap-{device}")
    made.yaxis.ticker.desired_num_ticks = 3
    return made
