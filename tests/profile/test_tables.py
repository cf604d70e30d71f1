"""Measured op times survive a file, and another machine's do not count."""

import json
from pathlib import Path

import pytest

from baechi.cost import CostTable
from baechi.errors import BaechiError
from baechi.ir.cluster import Device
from baechi.ir.graph import Graph
from baechi.ir.op import Op
from baechi.profile.tables import measured_share, read_table, write_table

TABLE = CostTable({"cpu": {"mm": 3e-6, "relu": 0.0}, "rtx2080": {"mm": 1e-7}})


def test_a_table_is_read_back(tmp_path: Path) -> None:
    assert read_table(write_table(TABLE, tmp_path / "t.json")) == TABLE


def test_this_machines_own_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAECHI_CACHE", str(tmp_path / "cache"))
    assert read_table() == CostTable()
    path = write_table(TABLE)
    assert read_table() == TABLE
    path.write_text(json.dumps({**json.loads(path.read_text()), "machine": "another"}))
    assert read_table() == CostTable()
    assert read_table(path) == TABLE  # named, it counts


def test_a_missing_file_is_an_error_when_it_was_named(tmp_path: Path) -> None:
    assert read_table(tmp_path / "t.json", missing_ok=True) == CostTable()
    with pytest.raises(BaechiError, match="cannot read") as caught:
        read_table(tmp_path / "t.json")
    assert caught.value.code == "B309"


def test_the_share_of_a_graph_that_is_measured() -> None:
    device = Device("d", 1, type="cpu", bytes_per_second=1e6)
    graph = Graph((Op("a", "mm", key="mm", moved_bytes=5), Op("b", "cat", key="cat", moved_bytes=1)))
    assert measured_share(graph, device, TABLE) == (1, pytest.approx(0.75))  # 3 us of 3 us and 1 us
