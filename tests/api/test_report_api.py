"""Reports from Python: of a plan, of a placed module, in a notebook, as a data frame."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import baechi
from baechi.errors import BaechiError
from baechi.ir.timeline import OpSpan, Timeline, TransferSpan

X = torch.ones(4, 8)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))


def test_a_plan_reports(tmp_path: Path) -> None:
    pytest.importorskip("bokeh", reason="charts need bokeh")
    made = baechi.plan(net(), (X,), loss=torch.sum, optimizer="sgd", cluster="2x1MiB", placer="round-robin")
    made.report(str(tmp_path / "step.html"))
    assert (tmp_path / "step.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_plan_in_a_notebook() -> None:
    made = baechi.plan(net(), (X,), loss=torch.sum, optimizer="sgd", cluster="2x1MiB", placer="round-robin")
    shown = made._repr_html_()
    assert "<svg" in shown
    assert "cpu:1" in shown
    assert "<script" not in shown


def test_a_placed_module_reports_all_its_plans(tmp_path: Path) -> None:
    pytest.importorskip("bokeh", reason="charts need bokeh")
    placed = baechi.place(net(), cluster="2x1MiB")
    with pytest.raises(BaechiError, match="nothing is placed yet"):
        placed.baechi.report(str(tmp_path / "step.html"))
    placed(X).sum().backward()
    placed.baechi.report(str(tmp_path / "step.html"))
    assert (tmp_path / "step.html").read_text(encoding="utf-8").count("<article") == 1
    with torch.no_grad():
        placed.eval()(X)
    placed.baechi.report(str(tmp_path / "step.html"))
    assert (tmp_path / "step.html").read_text(encoding="utf-8").count("<article") == len(placed.baechi.plans) == 2
    placed.baechi.close()


STEP = Timeline(
    (OpSpan("a", "d:0", 0.0, 2.0), OpSpan("b", "d:1", 3.0, 4.5)), (TransferSpan("x", "d:0", "d:1", 2.0, 3.0, 7),)
)


def test_a_timeline_as_a_data_frame() -> None:
    pytest.importorskip("pandas")
    frame = STEP.to_pandas()
    assert frame["name"].tolist() == ["a", "x", "b"]
    assert frame.groupby("what")["seconds"].sum().to_dict() == {"op": 3.5, "transfer": 1.0}
    assert frame.iloc[1].to_dict() == {
        "what": "transfer",
        "name": "x",
        "device": "d:1",
        "source": "d:0",
        "start": 2.0,
        "end": 3.0,
        "seconds": 1.0,
        "nbytes": 7,
    }


def test_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(BaechiError, match="B411"):
        STEP.to_pandas()
