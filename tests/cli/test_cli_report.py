"""``baechi report``: a page of plans and profiles, or a clear error and no page."""

import errno
import json
import os
from pathlib import Path

import pytest

from baechi.api import timeline_of
from baechi.ir.json import read_graph, read_plan
from baechi.profile.measured import Measured
from baechi.profile.profiled import Profiled, profile_dict

pytest.importorskip("bokeh", reason="charts need bokeh")


@pytest.fixture
def plan(cli, fork_join: Path, tmp_path: Path) -> Path:
    """Two devices for a fork and a join."""
    path = tmp_path / "plan.json"
    assert cli("place", fork_join, "--cluster", "2x1KiB", "-o", path).code == 0
    return path


@pytest.fixture
def profile(plan: Path, fork_join: Path, tmp_path: Path) -> Path:
    """A run of it that took as long as it should."""
    made = read_plan(plan)
    timeline = timeline_of(read_graph(fork_join), made)
    measured = Measured(2.0, (2.0, 2.0), 0.0, (), dict.fromkeys(made.cluster.device, 4))
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile_dict(made, Profiled(measured, timeline, 0.0, {}))), encoding="utf-8")
    return path


def pages(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix not in (".json", "") or p.name.startswith("."))


def test_a_page_of_a_plan_and_a_profile(cli, plan: Path, profile: Path, tmp_path: Path) -> None:
    out = tmp_path / "step.html"
    ran = cli("report", plan, profile, "-o", out)
    assert (ran.code, ran.out) == (0, "")
    assert "open it in a browser" in ran.err
    text = out.read_text(encoding="utf-8")
    assert "<h2>Comparison</h2>" in text
    assert text.count("<article") == 2
    assert text.count("Predicted beside measured") == 1
    assert pages(tmp_path) == ["step.html"]


def test_the_same_as_data(cli, profile: Path, tmp_path: Path) -> None:
    ran = cli("report", profile, "--json")
    assert ran.data["schema"] == "baechi/report/1"
    (step,) = ran.data["steps"]
    assert step["name"] == "profile.json"
    assert step["step_seconds"] == pytest.approx(2.0, abs=1e-3)
    assert step["beside"]["step"]["measured"] == 2.0
    assert pages(tmp_path) == []


def test_bad_files_leave_no_page(cli, plan: Path, profile: Path, fork_join: Path, tmp_path: Path) -> None:
    whole = profile.read_text(encoding="utf-8")
    short, out = tmp_path / "short.json", tmp_path / "step.html"
    short.write_text(whole[: len(whole) // 2], encoding="utf-8")
    for bad, code in ((short, "B402"), (fork_join, "B403"), (tmp_path / "none.json", "B401")):
        ran = cli("report", plan, bad, "-o", out)
        assert (ran.code, f"error[{code}]" in ran.err) == (2, True), ran.err
    fork_join.unlink()
    ran = cli("report", plan, "-o", out)
    assert (ran.code, "error[B410]" in ran.err) == (2, True), ran.err
    assert "the graph of" in ran.err
    assert pages(tmp_path) == []


def test_a_plan_without_a_graph(cli, plan: Path, tmp_path: Path) -> None:
    data = json.loads(plan.read_text(encoding="utf-8"))
    data["graph"]["target"] = {"name": "elsewhere"}
    plan.write_text(json.dumps(data), encoding="utf-8")
    ran = cli("report", plan, "-o", tmp_path / "step.html")
    assert (ran.code, "error[B406]" in ran.err) == (2, True), ran.err
    assert pages(tmp_path) == []


def test_a_full_disk(cli, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    ran = cli("report", plan, "-o", tmp_path / "step.html")
    assert (ran.code, "error[B404]" in ran.err) == (2, True)
    assert pages(tmp_path) == []


def test_a_trace_of_a_profile_is_of_the_measured_step(cli, profile: Path) -> None:
    data = json.loads(profile.read_text(encoding="utf-8"))
    for span in data["timeline"]["ops"]:
        span[2:] = [2 * span[2], 2 * span[3]]
    for sent in data["timeline"]["transfers"]:
        sent[3:5] = [2 * sent[3], 2 * sent[4]]
    profile.write_text(json.dumps(data), encoding="utf-8")
    spans = {e["name"]: e for e in cli("trace", profile).data["traceEvents"] if e["ph"] == "X"}
    assert spans["in"]["dur"] == pytest.approx(1e6)
