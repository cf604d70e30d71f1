"""A run of clusters as data, text and a page."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baechi.cli.main import main
from baechi.ir.cluster import Device
from baechi.replicas.cluster.body import Ended
from baechi.replicas.cluster.crew_driver import CrewOutcome
from baechi.replicas.cluster.crew_outcome import crew_data, crew_status_text, crew_text
from baechi.replicas.cluster.crew_session import CrewSession
from baechi.replicas.cluster.station import Station
from baechi.replicas.ravnest.layout import Layout
from baechi.replicas.ravnest.nodes import Node

NODES = tuple(Node(Device(name, 1 << 20), 1e6) for name in ("a", "b", "c"))


def outcome() -> CrewOutcome:
    layout = Layout("digest", ((0,), (1,)), ({}, {}), (("a",), ("b",)), (1, 1), (8.0, float("inf")))
    empty = Station("c", lambda to, what, arguments: None).status()
    statuses: dict[int, Any] = {}
    for peer, losses in ((0, [(0, 2.0), (1, 1.0)]), (1, [(0, float("nan"))])):
        more = {"peer": "ab"[peer], "cluster": peer, "stage": 0, "microbatches": len(losses), "losses": losses}
        statuses[peer] = {**empty, **more, "pid": 1}
    statuses[2] = {**empty, "pid": 2}
    ended = {0: Ended(), 1: Ended("B808", "it died"), 2: Ended()}
    return CrewOutcome(layout, statuses, ended, (1,), {0: {"w": np.ones(1)}}, 3.0)


def test_it_is_plain_data_and_a_table() -> None:
    data = json.loads(json.dumps(crew_data(outcome(), CrewSession(nodes=NODES)), allow_nan=False))
    first, second = data["clusters"]
    assert (first["peers"], first["whole"], first["loss"], first["first_loss"]) == (["a"], True, 1.5, 2.0)
    assert (second["whole"], second["loss"], second["losses"]) == (False, None, [[0, None]])
    assert (first["predicted_microbatches_per_second"], second["predicted_microbatches_per_second"]) == (8.0, None)
    assert [row["error"] for row in data["peers"]] == [None, "error[B808]: it died", None]
    text = crew_text(data)
    assert max(map(len, text.splitlines())) <= 80
    assert "peer b: error[B808]: it died" in text
    assert len(crew_status_text(outcome().statuses).splitlines()) == 4


def test_it_has_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("bokeh")
    path, page = tmp_path / "run.json", tmp_path / "run.html"
    path.write_text(json.dumps(crew_data(outcome(), CrewSession(nodes=NODES))), encoding="utf-8")
    assert main(["report", str(path), "-o", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "2 clusters that hold one model each" in text
    assert "it died" in text
