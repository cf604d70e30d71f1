"""The page as HTML: one file that asks nothing of a network, and is not allowed to."""

import base64
import gzip
import json
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from baechi.errors import BaechiError
from baechi.files import write_atomic
from baechi.ir.bulk import uncollected
from baechi.report.facts import Traffic
from baechi.report.files import Step
from baechi.report.layout import clip, percent
from baechi.report.page.data import page_of
from baechi.report.page.palette import colour_of
from baechi.report.page.records import Page
from baechi.report.page.shell import closed, policy_of
from baechi.report.page.spans import chart_of
from baechi.units import format_bytes, format_seconds
from baechi.version import __version__

__all__ = ["render", "report_html", "templates", "write_report"]


def write_report(steps: Sequence[Step], path: str | Path) -> None:
    """Write a page about one step, or that compares several.

    Args:
        steps: at least one; the first is what others are compared with.
        path: of the HTML file, which is written whole or not at all.

    Raises:
        BaechiError: B404 when it cannot be written, B407 when Bokeh is not there.
    """
    with uncollected():
        text = report_html(steps)
    write_atomic(path, text)


def report_html(steps: Sequence[Step]) -> str:
    """The page as text; arguments and errors as `write_report`."""
    try:
        from baechi.report.page.charts import bokeh_script, charts_item
    except ModuleNotFoundError as error:
        raise BaechiError(
            "B407", f"a report needs {error.name}, which is not installed", help="pip install 'baechi[report]'"
        ) from None
    items = []
    for n, step in enumerate(steps):
        cluster = step.plan.cluster
        measured = chart_of(step.graph, cluster, step.profiled.timeline) if step.profiled is not None else None
        items.append(charts_item(n, cluster, chart_of(step.graph, cluster, step.timeline), measured))
    return render(page_of(steps), items, bokeh_script())


def render(page: Page, items: Sequence[dict[str, Any]], library: str) -> str:
    """The page from its data.

    Args:
        page: what it says.
        items: the charts of each step.
        library: the script that draws them.
    """
    scripts = [closed(library), closed(_read("spans.js") + _read("page.js"))]
    matrices = [_matrix([d.name for d in step.devices], step.traffic) for step in page.steps]
    colours = {d.name: colour_of(i) for step in page.steps for i, d in enumerate(step.devices)}
    return (
        templates()
        .get_template("page.html.jinja")
        .render(
            page=page,
            policy=policy_of(scripts),
            version=__version__,
            style=Markup(_read("style.css")),
            matrices=matrices,
            colours=colours,
            charts=[Markup(_packed(item)) for item in items],
            scripts=[Markup(script) for script in scripts],
        )
    )


def _matrix(names: Sequence[str], traffic: Sequence[Traffic]) -> tuple[tuple[Traffic, ...], ...]:
    """A row for each source, a column for each destination."""
    known = {(t.source, t.destination): t for t in traffic}
    return tuple(tuple(known.get((a, b), Traffic(a, b, 0, 0, 0.0)) for b in names) for a in names)


def templates() -> Environment:
    """Templates that escape what they are given, and know how we write amounts."""
    environment = Environment(
        loader=PackageLoader("baechi.report.page", "."), autoescape=True, undefined=StrictUndefined
    )
    environment.filters.update(
        bytes=format_bytes,
        change=_change,
        clip=clip,
        colour=colour_of,
        count=lambda n: f"{n:,}",
        percent=percent,
        seconds=format_seconds,
        stroke=_stroke,
    )
    return environment


def _change(ratio: float) -> str:
    return "as long" if abs(ratio) < 5e-4 else f"{'+' if ratio > 0 else '-'}{percent(abs(ratio))}"


def _stroke(nbytes: int) -> str:
    """A line's width grows with the order of magnitude: 1 pixel up to a KiB, 6 for a GiB."""
    return f"{min(6.0, max(1.0, math.log2(nbytes + 1) / 4 - 1.5)):.1f}"


def _read(name: str) -> str:
    return resources.files("baechi.report.page").joinpath(name).read_text(encoding="utf-8")


def _packed(item: dict[str, Any]) -> str:
    text = json.dumps(item, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()
