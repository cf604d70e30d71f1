"""The page in a real browser: it draws, it answers to clicks, and it asks nothing of a network.

Needs ``pip install playwright`` and a chromium (Debian's, ``apt-get install chromium``).
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from baechi.api import place_graph, timeline_of
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.models.graphs import random_dag
from baechi.report import write_report
from baechi.report.files import Step

sync_api = pytest.importorskip("playwright.sync_api", reason="clicking needs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="clicking needs chromium")

PATIENCE = 60_000  # milliseconds


class Opened(NamedTuple):
    """A page that is open, what it complained of, and what it asked for."""

    page: Any
    complaints: list[str]
    requests: list[str]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


def opened(browser: Any, path: Path, **options: Any) -> Opened:
    page = browser.new_page(viewport={"width": 1200, "height": 900}, **options)
    page.set_default_timeout(PATIENCE)
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    return Opened(page, complaints, requests)


@pytest.fixture(scope="module")
def drawn(browser: Any, page: Path) -> Iterator[Opened]:
    found = opened(browser, page)
    found.page.wait_for_selector("html[data-drawn]", state="attached")
    yield found
    found.page.close()


def test_it_draws_without_a_complaint_or_a_request(drawn: Opened, page: Path) -> None:
    assert drawn.complaints == []
    assert drawn.requests == [page.as_uri()]
    assert drawn.page.locator("#charts-0 canvas").count() > 0
    shapes = drawn.page.evaluate("Bokeh.documents.map((d) => d.roots().length)")
    assert shapes == [1, 1]


def test_a_table_is_sorted_by_a_click(drawn: Opened) -> None:
    table = drawn.page.locator("#step-0 table", has_text="Its longest parts").first
    button = table.get_by_role("button", name="begins")

    def begins() -> list[float]:
        return [
            float(v) for v in table.locator("tbody tr td:nth-child(4)").evaluate_all("c => c.map(x => x.dataset.v)")
        ]

    unsorted = begins()
    button.click()
    assert begins() == sorted(unsorted, reverse=True)
    assert table.locator("th[aria-sort=descending]").count() == 1
    button.click()
    assert begins() == sorted(unsorted)
    table.get_by_role("button", name="op or tensor").click()
    names = table.locator("tbody tr th").all_inner_texts()
    assert names == drawn.page.evaluate("n => n.sort((a, b) => a.localeCompare(b, 'en', {numeric: true}))", names)


def test_finding_an_op_moves_all_charts_to_it(drawn: Opened, run: Step) -> None:
    span = max(run.timeline.ops, key=lambda s: s.end - s.start)
    drawn.page.fill("#find-1", span.op)
    drawn.page.locator("#found-1 button").get_by_text(f"{span.op} on {span.device}", exact=True).first.click()
    chosen = drawn.page.locator("#chosen-1").inner_text()
    assert span.op in chosen
    assert span.device in chosen
    ranges = drawn.page.evaluate(
        "[...Bokeh.documents[1].all_models].filter(m => m.type === 'Figure').map(m => [m.x_range.start, m.x_range.end])"
    )
    assert len({tuple(r) for r in ranges}) == 1
    assert ranges[0][1] - ranges[0][0] < drawn.page.evaluate(
        "Math.max(...[...Bokeh.documents[0].all_models].filter(m => m.name === 'time-0').map(m => m.end))"
    )


def test_a_click_on_a_bar_says_which_op_it_is(drawn: Opened, step: Step) -> None:
    span = max(step.timeline.ops, key=lambda s: s.end - s.start)
    drawn.page.locator("#charts-0").evaluate("e => e.scrollIntoView()")
    where = drawn.page.evaluate(
        """(name) => {
          const figure = [...Bokeh.documents[0].all_models].find((m) => m.name === "predicted-0");
          const source = figure.renderers.find((r) => r.name.startsWith("ops-")).data_source;
          const i = source.data.name.indexOf(name);
          const view = Bokeh.index.query_one((v) => v.model === figure);
          const box = view.canvas_view.el.getBoundingClientRect();
          const x = view.frame.x_scale.compute((source.data.left[i] + source.data.right[i]) / 2);
          return [box.x + x, box.y + view.frame.y_scale.compute(source.data.y[i])];
        }""",
        span.op,
    )
    drawn.page.mouse.click(*where)
    drawn.page.wait_for_selector("#chosen-0 dd")
    assert span.op in drawn.page.locator("#chosen-0").inner_text()
    assert drawn.complaints == []


def test_the_critical_path_can_be_hidden(drawn: Opened) -> None:
    paths = "m.type === 'GlyphRenderer' && m.name?.startsWith('critical-')"
    seen = f"[...Bokeh.documents[0].all_models].filter(m => {paths}).map(m => m.visible)"
    assert set(drawn.page.evaluate(seen)) == {True}
    drawn.page.uncheck("#critical-0")
    assert set(drawn.page.evaluate(seen)) == {False}
    drawn.page.check("#critical-0")


def test_holders_of_another_device_open(drawn: Opened) -> None:
    second = drawn.page.locator("#step-0 details").nth(1)
    assert not second.locator("table").first.is_visible()
    second.locator("summary").click()
    assert second.locator("table").first.is_visible()


def test_dark_and_print_and_no_script(browser: Any, page: Path) -> None:
    dark = opened(browser, page, color_scheme="dark")
    dark.page.wait_for_selector("html[data-drawn]", state="attached")
    ink = "getComputedStyle(document.body).color"
    assert dark.page.evaluate(ink) == "rgb(230, 233, 237)"
    titles = "[...Bokeh.documents[0].all_models].filter(m => m.type === 'Title').map(m => m.text_color)"
    assert set(dark.page.evaluate(titles)) == {"#e6e9ed"}
    dark.page.emulate_media(media="print", color_scheme="light")
    assert dark.page.evaluate(ink) == "rgb(0, 0, 0)"
    assert set(dark.page.evaluate(titles)) == {"#1b1f24"}
    assert not dark.page.locator("#find-0").is_visible()
    assert dark.complaints == []
    dark.page.close()
    plain = opened(browser, page, java_script_enabled=False)
    assert not plain.page.locator("#find-0").is_visible()
    assert plain.page.locator("#step-0 table").first.is_visible()
    plain.page.close()


MIDDLE = """() => {
  const figure = [...Bokeh.documents[0].all_models].find((m) => m.name === "predicted-0");
  const view = Bokeh.index.query_one((v) => v.model === figure);
  const box = view.canvas_view.el.getBoundingClientRect();
  const y = figure.renderers.find((r) => r.name === "ops-predicted-0").data_source.data.y[0];
  return [box.x + view.frame.x_scale.compute(5.0005), box.y + view.frame.y_scale.compute(y)];
}"""
BARS = """() => {
  const {left, right, takes, name, count} = [...Bokeh.documents[0].all_models].find((m) => m.name === "ops-predicted-0-source").data;
  return left.map((_, i) => [left[i], right[i], takes[i], name[i], count[i]]);
}"""
SPAN = (
    "() => { const r = [...Bokeh.documents[0].all_models].find((m) => m.name === 'time-0'); return [r.start, r.end]; }"
)
ZOOM = """async (to) => {
  [...Bokeh.documents[0].all_models].find((m) => m.name === "time-0").setv({start: to[0], end: to[1]});
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""


def test_twenty_thousand_ops(browser: Any, cluster: Cluster, tmp_path: Path) -> None:
    graph = random_dag(1, 20_000)
    roomy = replace(cluster, devices=tuple(replace(d, memory_bytes=1 << 40) for d in cluster.devices))
    plan = place_graph(graph, roomy, "m-etf")
    timeline = timeline_of(graph, plan)
    path = tmp_path / "step.html"
    write_report([Step("large", plan, graph, timeline)], path)
    assert path.stat().st_size < 6_000_000
    found = opened(browser, path)
    found.page.wait_for_selector("html[data-drawn]", state="attached")
    bars, (start, end) = found.page.evaluate(BARS), found.page.evaluate(SPAN)
    factor = (end - start) / timeline.step_seconds
    busy = sum(timeline.busy_seconds.values()) * factor
    assert sum(takes for _, _, takes, _, _ in bars) == pytest.approx(busy)  # narrow ones are drawn as wide as together
    assert sum(count for *_, count in bars) == sum(s.end > s.start for s in timeline.ops)
    assert max(count for *_, count in bars) > 1
    middle, width = (start + end) / 2, (end - start) / 500
    found.page.evaluate(ZOOM, [middle, middle + width])
    near = [
        s for s in timeline.ops if s.end * factor > middle and s.start * factor < middle + width and s.end > s.start
    ]
    assert sorted(name for *_, name, count in found.page.evaluate(BARS) if count == 1) == sorted(s.op for s in near)
    found.page.evaluate(ZOOM, [start, end])
    assert found.page.evaluate(BARS) == bars
    assert found.complaints == []
    found.page.close()


def test_a_click_on_many_narrow_bars_says_what_they_are(browser: Any, tmp_path: Path) -> None:
    """Ten thousand ops of a millisecond are a hundredth of a second in a pixel."""
    ops = [Op(f"op{i}", "relu" if i % 2 else "mul", outputs=(Tensor(f"t{i}", 1),), seconds=1e-3) for i in range(10_000)]
    graph, one = Graph(tuple(ops), "narrow"), Cluster((Device("d:0", 1 << 40),), Link())
    plan = place_graph(graph, one, "single")
    write_report([Step("narrow", plan, graph, timeline_of(graph, plan))], tmp_path / "step.html")
    found = opened(browser, tmp_path / "step.html")
    found.page.wait_for_selector("html[data-drawn]", state="attached")
    bars = found.page.evaluate(BARS)
    assert len(bars) < 1200
    assert [takes / count for *_, takes, _, count in bars] == pytest.approx([1e-3] * len(bars))
    found.page.locator("#charts-0").scroll_into_view_if_needed()
    found.page.mouse.click(*found.page.evaluate(MIDDLE))
    found.page.wait_for_selector("#chosen-0 dd")
    told = found.page.locator("#chosen-0").inner_text()
    assert re.search(r"\d+ ops\s+op\d+, op\d+, ", told)
    assert "relu" in told
    assert "mul" in told
    assert found.complaints == []
    found.page.close()
