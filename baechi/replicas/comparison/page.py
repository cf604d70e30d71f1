"""A race as one HTML file that asks nothing of a network, and is not allowed to."""

import base64
import hashlib
import json
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from baechi.files import write_atomic
from baechi.replicas.comparison.charts import race_item
from baechi.replicas.comparison.race import Race
from baechi.replicas.comparison.table import rows_of
from baechi.report.page.charts import bokeh_script
from baechi.units import format_bytes, format_seconds
from baechi.version import __version__

__all__ = ["race_html", "write_race"]

_POLICY = "default-src 'none'; script-src {}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
_SCRIPT = """
const item = JSON.parse(document.getElementById("item").textContent);
Bokeh.embed.embed_item(item);
"""


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
    scripts = [_closed(bokeh_script()), _SCRIPT]
    policy = _POLICY.format(" ".join(f"'sha256-{_digest(script)}'" for script in scripts))
    environment = Environment(
        loader=PackageLoader("baechi.replicas.comparison", "."), autoescape=True, undefined=StrictUndefined
    )
    environment.filters.update(bytes=format_bytes, seconds=format_seconds)
    style = resources.files("baechi.report.page").joinpath("style.css").read_text(encoding="utf-8")
    item = json.dumps(race_item(race, "charts"), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return environment.get_template("page.html.jinja").render(
        race=race,
        rows=rows_of(race),
        seeds=len({curve.seed for curve in race.curves}),
        policy=policy,
        version=__version__,
        style=Markup(style),
        item=Markup(item),
        scripts=[Markup(script) for script in scripts],
    )


def _closed(script: str) -> str:
    """A script that cannot end the element that it stands in; inside strings the backslash means nothing."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--").replace("\r\n", "\n")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
