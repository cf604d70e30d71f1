"""Steps and pages that several tests look at."""

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from baechi.api import place_graph, timeline_of
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.models.graphs import random_dag
from baechi.profile.measured import Measured
from baechi.profile.profiled import Profiled
from baechi.report.files import Step

VOID = ("meta", "input", "br", "rect", "path")


class Html(HTMLParser):
    """Elements with their attributes, the text in each, and whether all are closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID or (tag == "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def of(self, tag: str) -> Iterator[str]:
        return (text for at, text in self.texts if at == tag)


@pytest.fixture(scope="session")
def html() -> type[Html]:
    return Html


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return Cluster(tuple(Device(f"d:{k}", 1 << 20) for k in range(3)), Link(1e-6, 1e9))


@pytest.fixture(scope="session")
def graph() -> Graph:
    return random_dag(4, 60)


@pytest.fixture(scope="session")
def step(graph: Graph, cluster: Cluster) -> Step:
    plan = place_graph(graph, cluster, "round-robin")
    return Step("plan.json", plan, graph, timeline_of(graph, plan))


@pytest.fixture(scope="session")
def run(graph: Graph, cluster: Cluster) -> Step:
    """A plan, and a run of it that was just as it says."""
    plan = place_graph(graph, cluster, "m-etf")
    timeline = timeline_of(graph, plan)
    measured = Measured(timeline.step_seconds, (timeline.step_seconds,) * 3, 0.0, (), dict(timeline.peak_bytes))
    return Step("profile.json", plan, graph, timeline, profiled=Profiled(measured, timeline, 0.0, {}))


@pytest.fixture(scope="session")
def page(step: Step, run: Step, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page that compares the two."""
    pytest.importorskip("bokeh", reason="charts need bokeh")
    from baechi.report import write_report

    path = tmp_path_factory.mktemp("page") / "step.html"
    write_report([step, run], path)
    return path
