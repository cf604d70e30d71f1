"""What is handed to the chart library: one time axis for all, caps where they belong, every number as it is."""

import base64
import json
from typing import Any

import numpy as np
import pytest

from baechi.api import place_graph, timeline_of
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.report.files import Step
from baechi.report.page.spans import chart_of

pytest.importorskip("bokeh", reason="charts need bokeh")


def objects(value: Any) -> list[dict[str, Any]]:
    """All models in a document's JSON."""
    if isinstance(value, dict):
        inner = [found for one in value.values() for found in objects(one)]
        return [value, *inner] if value.get("type") == "object" and "attributes" in value else inner
    return [found for one in value for found in objects(one)] if isinstance(value, list) else []


def made(step: Step, *, measured: bool = False) -> dict[str, Any]:
    from baechi.report.page.charts import charts_item

    chart = chart_of(step.graph, step.plan.cluster, step.timeline)
    found = charts_item(0, step.plan.cluster, chart, chart if measured else None)
    assert json.loads(json.dumps(found, allow_nan=False))["item"]["target_id"] == "charts-0"
    return found


def item(step: Step, *, measured: bool = False) -> list[dict[str, Any]]:
    return objects(made(step, measured=measured)["item"])


def of(models: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [m["attributes"] for m in models if m["name"] == name]


def test_all_figures_share_one_axis(step: Step) -> None:
    models = item(step, measured=True)
    figures = of(models, "Figure")
    assert len(figures) == 2 + len(step.plan.cluster)
    (time,) = (m for m in models if m["attributes"].get("name") == "time-0")
    assert {json.dumps(f["x_range"])[:20] for f in figures[1:]} == {json.dumps({"id": time["id"]})[:20]}
    assert time["attributes"]["end"] == pytest.approx(step.timeline.step_seconds * 1e3)
    assert time["attributes"]["tags"] == ["ms"]


def test_caps_are_lines_where_they_are_in_sight(graph: Graph) -> None:
    roomy = Cluster(tuple(Device(f"d:{k}", 1 << 40) for k in range(2)), Link(1e-6, 1e9))
    peak = max(place_graph(graph, roomy, "single").predicted.peak_bytes.values())
    cluster = Cluster((Device("d:0", 2 * peak), Device("d:1", 1 << 40)), Link(1e-6, 1e9))
    plan = place_graph(graph, cluster, "single")
    models = item(Step("one", plan, graph, timeline_of(graph, plan)))
    lines = {m["attributes"]["name"] for m in models if str(m["attributes"].get("name")).startswith("cap-")}
    assert lines == {"cap-d:0"}
    titles = [t["text"] for t in of(models, "Title")]
    assert any("memory of d:1" in title and title.endswith("(far above)") for title in titles)


def test_columns_carry_every_op_and_transfer(step: Step) -> None:
    found = made(step)
    columns, words = found["charts"]["predicted"], found["words"]
    assert len(words) == len(set(words))

    def numbers(bars: str, column: str, kind: str) -> list[Any]:
        return np.frombuffer(base64.b64decode(columns[bars][column]), kind).tolist()

    def texts(bars: str, column: str) -> list[str]:
        return [words[i] for i in numbers(bars, column, "<u4")]

    times = zip(numbers("ops", "left", "<f8"), numbers("ops", "right", "<f8"), strict=True)
    ops = zip(texts("ops", "name"), texts("ops", "where"), times, strict=True)
    taking = [s for s in step.timeline.ops if s.end > s.start]
    assert sorted(ops) == sorted((s.op, s.device, (s.start * 1e3, s.end * 1e3)) for s in taking)
    assert any(numbers("ops", "critical", "u1"))
    copies = zip(texts("transfers", "name"), texts("transfers", "where"), strict=True)
    both = [(s.tensor, f"{s.source} to {s.destination}") for s in step.timeline.transfers] * 2
    assert sorted(copies) == sorted(both)
    for bars in ("ops", "transfers"):
        lanes, left, right = columns[bars]["lanes"], numbers(bars, "left", "<f8"), numbers(bars, "right", "<f8")
        assert sum(count for _, _, count in lanes) == len(left)
        assert [y for y, _, _ in lanes] == sorted({y for y, _, _ in lanes}, reverse=True)
        first = 0
        for _, _, count in lanes:
            assert all(left[i + 1] >= right[i] for i in range(first, first + count - 1))
            first += count
