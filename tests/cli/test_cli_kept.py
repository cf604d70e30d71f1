"""Graphs that are kept: a plan is looked at without its model."""

import gzip
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from baechi.cli.kept import keep_graph, kept_graph
from baechi.ir.graph import Graph
from baechi.target import Target, load_target

STEP = """
import torch

def step(width=3):
    layers = torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, width)
    return {"module": torch.nn.Sequential(*layers), "args": (torch.ones(2, 4),), "target": torch.ones(2, width),
            "loss": torch.nn.MSELoss(), "optimizer": "sgd"}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BAECHI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "graphs"


@pytest.fixture
def target() -> Target:
    return load_target("models:mlp", batch=4, options={"width": 16, "depth": 2})


def test_the_same_graph_comes_back(folder: Path, target: Target) -> None:
    graph = target.graph
    keep_graph(target, graph)
    found = kept_graph(graph.digest)
    assert found is not None
    assert (found.ops, found.name, dict(found.meta)) == (graph.ops, graph.name, dict(graph.meta))
    assert kept_graph("0" * 16) is None


@pytest.mark.parametrize("damage", ["cut", "other bytes", "no JSON", "another graph", "another version"])
def test_a_damaged_file_is_no_graph(folder: Path, target: Target, damage: str) -> None:
    keep_graph(target, target.graph)
    (path,) = folder.iterdir()
    data = json.loads(gzip.decompress(path.read_bytes()))
    fewer = data | {"ops": data["ops"][:1]}
    text = {"no JSON": "{", "another graph": json.dumps(fewer), "another version": json.dumps(data | {"schema": "x"})}
    whole = path.read_bytes()
    cut = whole[: len(whole) // 2] if damage == "cut" else whole[:40] + b"\0" * 40 + whole[80:]
    path.write_bytes(gzip.compress(text[damage].encode()) if damage in text else cut)
    assert kept_graph(target.graph.digest) is None


def test_the_least_asked_for_goes_first(folder: Path, target: Target) -> None:
    first, *others = target.graph.ops
    graphs = [Graph((replace(first, seconds=float(i)), *others)) for i in range(33)]
    for i, graph in enumerate(graphs[:32]):
        keep_graph(target, graph)
        os.utime(folder / f"{graph.digest}.json.gz", (i, i))
    assert kept_graph(graphs[0].digest) is not None
    keep_graph(target, graphs[32])
    assert len(list(folder.iterdir())) == 32
    assert kept_graph(graphs[1].digest) is None
    assert kept_graph(graphs[0].digest) is not None


def test_a_plan_is_looked_at_without_its_model(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, module = tmp_path / "plan.json", tmp_path / "kept_steps.py"
    module.write_text(STEP, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    flags = ("--cluster", "2x1GiB", "--placer", "m-etf", "--recompute", "1", "-o", plan)
    assert cli("place", "kept_steps:step", *flags).code == 0
    views = (("explain", plan), ("trace", plan), ("report", plan, "--json"), ("graph", plan, "--json"))
    kept = [cli(*view).out for view in views]
    for file in (tmp_path / "cache" / "graphs").iterdir():
        file.unlink()
    assert [cli(*view).out for view in views] == kept  # captured again
    module.write_text(STEP.replace("width=3", "width=5"), encoding="utf-8")
    monkeypatch.delitem(sys.modules, "kept_steps")
    assert [cli(*view).out for view in views] == kept  # as it was
    ran = cli("run", plan, "--steps", 1)
    assert (ran.code, "error[B402]" in ran.err) == (2, True), ran.err


def test_a_file_is_not_kept(cli: Any, fork_join: Path, tmp_path: Path) -> None:
    assert cli("place", fork_join, "--cluster", "2x1KiB", "--placer", "m-etf", "-o", tmp_path / "plan.json").code == 0
    assert not (tmp_path / "cache" / "graphs").exists()
