"""The page as a file: whole, closed to the network, and readable without its scripts."""

import base64
import errno
import hashlib
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from baechi.api import place_graph, timeline_of
from baechi.errors import BaechiError
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.report import write_report
from baechi.report.files import Step
from baechi.report.page.data import page_of
from baechi.report.page.notebook import notebook_html
from baechi.units import format_bytes, format_seconds

pytest.importorskip("bokeh", reason="charts need bokeh")


def test_tables_hold_all_numbers_without_a_script(page: Path, step: Step, run: Step, html: Any) -> None:
    found = html(page.read_text(encoding="utf-8"))
    assert found.open == []
    cells = {*found.of("td"), *found.of("small"), *found.of("dd")}
    for one in page_of([step, run]).steps:
        assert " ".join(one.verdict) in found.of("p")
        for device in one.devices:
            assert {format_seconds(device.busy_seconds), format_bytes(device.peak_bytes)} <= cells
        for part in (*one.path, *one.bounds):
            assert format_seconds(part.amount) in cells
        for change in one.changes:
            assert {change.plan, format_seconds(change.seconds)} <= cells
        for traffic in one.traffic:
            assert format_bytes(traffic.nbytes) in cells
    assert len(list(found.of("noscript"))) + sum("need JavaScript" in text for text in found.of("p")) == 2
    heads = [attrs for tag, attrs in found.elements if tag == "th" and attrs.get("scope") == "col"]
    assert len(heads) > 50


def test_nothing_is_fetched_and_only_our_scripts_run(page: Path, html: Any) -> None:
    text = page.read_text(encoding="utf-8")
    found = html(text)
    links = [v for _, attrs in found.elements for k, v in attrs.items() if k in ("src", "href", "action", "data")]
    assert all(link is not None and link.startswith("#") for link in links)
    assert not [tag for tag, _ in found.elements if tag in ("link", "iframe", "img", "object", "embed", "base", "form")]
    assert not [k for _, attrs in found.elements for k in attrs if k.startswith("on")]
    (policy,) = (a["content"] for t, a in found.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert not {"unsafe-eval", "http:", "https:", "*", "connect-src"} & set(re.split(r"[ ;']+", policy))
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert len(hashes) == 2
    assert re.findall(r"'sha256-([^']+)'", policy) == hashes
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_names_are_text_whatever_they_are(cluster: Cluster, html: Any, tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
    graph = Graph((Op(evil, evil, outputs=(Tensor(evil + "t", 4),), seconds=1.0, module=evil, source=evil),), evil)
    plan = place_graph(graph, cluster, "single")
    write_report([Step(evil, plan, graph, timeline_of(graph, plan))], tmp_path / "step.html")
    text = (tmp_path / "step.html").read_text(encoding="utf-8")
    found = html(text)
    assert "alert(1)</script>" not in text
    assert [attrs for tag, attrs in found.elements if tag == "script" and "id" not in attrs] == [{}, {}]
    assert not [tag for tag, _ in found.elements if tag == "img"]
    assert evil in found.of("h2")


def test_placers_that_were_not_asked_are_named(cluster: Cluster, step: Step, page: Path, tmp_path: Path) -> None:
    chain = tuple(
        Op(f"op{i}", "op", (f"t{i - 1}",) if i else (), (Tensor(f"t{i}", 1),), seconds=1e-6) for i in range(5001)
    )
    graph = Graph(chain, "long")
    plan = place_graph(graph, cluster, "m-etf")
    write_report([Step("long", plan, graph, timeline_of(graph, plan))], tmp_path / "step.html")
    text = (tmp_path / "step.html").read_text(encoding="utf-8")
    assert "Not asked, for the graph is large: contiguous." in text
    assert "placed by heft" in text
    assert "placed by contiguous" not in text
    assert "placed by contiguous" in page.read_text(encoding="utf-8")


def test_one_step_is_not_compared(step: Step, page: Path, tmp_path: Path) -> None:
    write_report([step], tmp_path / "step.html")
    assert "<h2>Comparison</h2>" in page.read_text(encoding="utf-8")
    assert "<h2>Comparison</h2>" not in (tmp_path / "step.html").read_text(encoding="utf-8")


def test_a_full_disk_leaves_nothing(step: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BaechiError, match="No space left on device"):
        write_report([step], tmp_path / "step.html")
    assert list(tmp_path.iterdir()) == []


def test_without_bokeh(step: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "baechi.report.page.charts", raising=False)
    monkeypatch.setitem(sys.modules, "bokeh.embed", None)
    with pytest.raises(BaechiError, match=r"pip install 'baechi\[report\]'|needs bokeh") as caught:
        write_report([step], tmp_path / "step.html")
    assert caught.value.code == "B407"
    assert list(tmp_path.iterdir()) == []


def test_steps_that_have_nothing_to_draw(html: Any, tmp_path: Path) -> None:
    graph = Graph((Op("only", "input", outputs=(Tensor("x", 4),), seconds=0.0),), "still")
    one = Cluster((Device("d:0", 8),), Link())
    plan = place_graph(graph, one, "single")
    step = Step("still", plan, graph, timeline_of(graph, plan))
    write_report([step, replace(step, name="again")], tmp_path / "step.html")
    found = html((tmp_path / "step.html").read_text(encoding="utf-8"))
    assert "A step takes no time: no op of the graph has a cost." in " ".join(found.of("p"))
    assert "Nothing is sent." in found.of("p")


def test_a_notebook_needs_no_script(run: Step, html: Any) -> None:
    text = notebook_html(run)
    found = html(text)
    tags = [tag for tag, _ in found.elements]
    assert found.open == []
    assert "script" not in tags
    assert tags.count("svg") == tags.count("table") == 1
    assert format_seconds(run.timeline.step_seconds) in found.of("b")
    blocks = [attrs for tag, attrs in found.elements if tag == "rect"]
    assert 0 < len(blocks) <= len(run.timeline.ops) + len(run.timeline.transfers)
    assert max(float(a["x"]) + float(a["width"]) for a in blocks) <= 641
    assert len(text) < 20_000
