"""How staleness grows with the number of peers, for capacities that stay, grow as the logarithm, or are shared."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baechi.errors import BaechiError
from baechi.files import write_atomic
from baechi.replicas.age_model import AgeModel, staleness_law
from baechi.replicas.ages import simulate_ages
from baechi.replicas.topology import parse_topology

__all__ = ["POLICIES", "Point", "sweep", "sweep_page"]

POLICIES = ("constant", "log", "opportunistic")
"""A capacity that does not depend on n, one that grows as ln n, and the constant one shared by the holders of news."""

_EXCHANGES = 400_000  # for each point
_COLOURS = {"constant": "#4477aa", "log": "#228833", "opportunistic": "#ee6677"}


@dataclass(frozen=True, slots=True)
class Point:
    """One simulation beside the law: updates that a model misses of another peer.

    Attributes:
        policy: one of `POLICIES`.
        peers: n.
        capacity: exchanges a second that a peer begins.
        staleness: measured.
        law: exact.
    """

    policy: str
    peers: int
    capacity: float
    staleness: float
    law: float


def sweep(
    peers: Sequence[int],
    *,
    capacity: float = 1.0,
    update_rate: float = 1.0,
    compute_offset: float = 0.0,
    seed: int = 0,
    exchanges: int = _EXCHANGES,
) -> Iterator[Point]:
    """Measure each number of peers under each policy.

    Args:
        peers: numbers n, from 2 on.
        capacity: of ``constant`` and ``opportunistic``; ``log`` has `capacity` times ln n.
        update_rate: mu.
        compute_offset: c, in seconds.
        seed: of everything random.
        exchanges: about how many to simulate for a point.

    Raises:
        BaechiError: B841 and B842 on what cannot be simulated.
    """
    for policy in POLICIES:
        for n in peers:
            rate = capacity * math.log(n) if policy == "log" else capacity
            shared = policy == "opportunistic"
            model = AgeModel(parse_topology("complete", n), rate, update_rate, compute_offset, opportunistic=shared)
            law = staleness_law(model)
            if law is None:
                continue
            settles = 8 * law / model.effective_rate + 30 / rate
            found = simulate_ages(model, max(settles, exchanges / (n * rate)), seed=seed)
            yield Point(policy, n, rate, found.mean_staleness, law)


def sweep_page(points: Sequence[Point], path: str | Path) -> None:
    """Draw measured staleness against n beside the laws, on a page that asks nothing of a network.

    Args:
        points: of `sweep`.
        path: of the HTML file.

    Raises:
        BaechiError: B404 when it cannot be written, B407 when Bokeh is not there.
    """
    try:
        from bokeh.core.types import ID
        from bokeh.embed import json_item
        from bokeh.plotting import figure

        from baechi.report.page.simple import TARGET, Table, simple_html
    except ModuleNotFoundError as error:
        raise BaechiError(
            "B407", f"a plot needs {error.name}, which is not installed", help="pip install 'baechi[report]'"
        ) from None
    title = "Version age of a model about another peer: simulated (dots) and exact (lines)"
    plot = figure(
        x_axis_type="log",
        y_axis_type="log",
        x_axis_label="peers n",
        y_axis_label="staleness (updates)",
        sizing_mode="stretch_width",
        height=520,
        tools="pan,box_zoom,wheel_zoom,hover,reset,save",
        tooltips=[("peers", "@n"), ("capacity", "@capacity{0.00}"), ("simulated", "@s{0.00}"), ("law", "@law{0.00}")],
    )
    for policy in POLICIES:
        _draw(plot, policy, [p for p in points if p.policy == policy])
    plot.legend.location = "top_left"
    header = ("policy", "peers", "capacity", "simulated", "law")
    rows = [(p.policy, f"{p.peers:,}", f"{p.capacity:.2f}", f"{p.staleness:.3f}", f"{p.law:.3f}") for p in points]
    item = dict(json_item(plot, ID(TARGET)))
    write_atomic(path, simple_html("Staleness of gossip", [title], item, [Table("Each point", header, rows)]))


def _draw(plot: Any, policy: str, points: Sequence[Point]) -> None:
    names = {"constant": "constant capacity", "log": "capacity x ln n", "opportunistic": "opportunistic, shared"}
    columns = {
        "n": [p.peers for p in points],
        "s": [p.staleness for p in points],
        "law": [p.law for p in points],
        "capacity": [p.capacity for p in points],
    }
    from bokeh.models import ColumnDataSource

    source = ColumnDataSource(columns)
    plot.line("n", "law", source=source, line_color=_COLOURS[policy], legend_label=names[policy])
    plot.scatter("n", "s", source=source, size=8, color=_COLOURS[policy], legend_label=names[policy])
