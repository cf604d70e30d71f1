"""A page of charts and tables: one file that asks nothing of a network, and is not allowed to."""

import json
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from baechi.report.page.charts import bokeh_script
from baechi.report.page.shell import closed, policy_of
from baechi.version import __version__

__all__ = ["TARGET", "Table", "simple_html"]

_SCRIPT = 'Bokeh.embed.embed_item(JSON.parse(document.getElementById("item").textContent));'

TARGET = "charts"
"""The id of the element that the charts go into."""


class Table(NamedTuple):
    """A table; the first cell of a row names it."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def simple_html(title: str, lines: Sequence[str], item: dict[str, Any], tables: Sequence[Table]) -> str:
    """The page as text.

    Args:
        title: also its heading.
        lines: what is said below; the first is what counts.
        item: what ``Bokeh.embed.embed_item`` takes, made for the element `TARGET`.
        tables: below the charts.
    """
    scripts = [closed(bokeh_script()), _SCRIPT]
    environment = Environment(
        loader=PackageLoader("baechi.report.page", "."), autoescape=True, undefined=StrictUndefined
    )
    text = json.dumps(item, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return environment.get_template("simple.html.jinja").render(
        title=title,
        lines=lines,
        tables=tables,
        target=TARGET,
        policy=policy_of(scripts),
        version=__version__,
        style=Markup(resources.files("baechi.report.page").joinpath("style.css").read_text(encoding="utf-8")),
        item=Markup(text),
        scripts=[Markup(script) for script in scripts],
    )
