"""The verbs that show a step or a graph to other programs."""

import io
import json
from pathlib import Path

import networkx as nx
import pytest

from baechi.cli.saved import saved_target
from baechi.config import parse_cluster
from baechi.ir.json import read_graph, read_plan, timeline_from_dict
from baechi.report.trace import check_trace, chrome_trace


@pytest.fixture
def plan(cli, fork_join: Path, tmp_path: Path) -> Path:
    """Two devices for a fork and a join."""
    path = tmp_path / "plan.json"
    assert cli("place", fork_join, "--cluster", "2x1KiB", "-o", path).code == 0
    return path


def test_trace_is_a_file_for_perfetto(cli, plan: Path, tmp_path: Path) -> None:
    ran = cli("trace", plan, "-o", tmp_path / "trace.json")
    assert (ran.code, ran.out) == (0, "")
    assert "ui.perfetto.dev" in ran.err
    trace = json.loads((tmp_path / "trace.json").read_text())
    ops = {e["name"]: e for e in trace["traceEvents"] if e["ph"] == "X" and e["cat"] == "forward"}
    assert ops.keys() == {"in", "left", "right", "out"}
    assert ops["in"]["dur"] == pytest.approx(5e5)
    assert cli("trace", plan).data == trace


def test_trace_leaves_nothing_where_it_cannot_write(cli, plan: Path, tmp_path: Path) -> None:
    ran = cli("trace", plan, "-o", tmp_path / "none" / "trace.json")
    assert (ran.code, "error[B404]" in ran.err) == (2, True)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == ["fork_join.json", "plan.json"]


def test_graph_in_four_formats(cli, fork_join: Path, plan: Path, tmp_path: Path) -> None:
    assert [line.split()[0] for line in cli("graph", fork_join).out.splitlines()[3:]] == ["in", "left", "right", "out"]
    assert '"in" -> "left" [label="4 B"];' in cli("graph", fork_join, "--format", "dot").out
    graphml = cli("graph", plan, "--format", "graphml").out
    nodes = dict(nx.read_graphml(io.BytesIO(graphml.encode())).nodes(data="device"))
    assert nodes == read_plan(plan).device
    assert cli("graph", fork_join, "--json", "-o", tmp_path / "again.json").code == 0
    assert read_graph(tmp_path / "again.json").digest == read_graph(fork_join).digest
    assert "2 ops" not in cli("graph", "models:mlp", "--batch", 2, "--depth", 1).out.splitlines()[0]


def test_explain_an_op(cli, plan: Path) -> None:
    ran = cli("explain", plan, "left", "--json")
    assert ran.data["schema"] == "baechi/explain-op/1"
    assert ran.data["objective_seconds"] == pytest.approx(2.0, abs=1e-3)
    (other,) = ran.data["elsewhere"]
    assert other["objective_seconds"] == pytest.approx(3.0, abs=1e-3)
    assert "waits for" in cli("explain", plan, "left").out
    ran = cli("explain", plan, "lef")
    assert (ran.code, ran.err) == (2, "error[B409]: the graph has no op 'lef'\n  help: there are 'left'\n")


def test_profile_takes_a_target_and_places_it(cli, tmp_path: Path) -> None:
    out = tmp_path / "step.json"
    flags = ("--cluster", "2x1GiB", "--placer", "m-etf", "--steps", 2, "--warmup", 1, "--keep-table")
    ran = cli("profile", "models:mlp", *flags, "-o", out, "--json")
    assert ran.code == 0, ran.err
    assert ran.data["plan"]["placer"]["name"] == "m-etf"
    assert len(ran.data["step_seconds"]["all"]) == 2
    assert cli("trace", out).code == 0


def test_profile_notes_every_op_and_transfer(cli, tmp_path: Path) -> None:
    path, out = tmp_path / "mlp.json", tmp_path / "profile.json"
    model = "models:mlp", "--batch", 8, "--set", "width=64", "--set", "depth=3"
    assert cli("place", *model, "--cluster", "2x1GiB", "--placer", "expert", "-o", path).code == 0
    ran = cli("profile", path, "--steps", 3, "--warmup", 1, "-o", out, "--json")
    assert ran.code == 0, ran.err
    assert ran.data == json.loads(out.read_text())
    plan, step = read_plan(path), timeline_from_dict(ran.data["timeline"])
    graph = saved_target(plan).graph
    assert {s.op: s.device for s in step.ops} == plan.device
    assert {(s.tensor, s.source, s.destination) for s in step.transfers} == set(plan.transfers)
    for sent in step.transfers:
        assert sent.start >= step.span[graph.producer[sent.tensor].name].end
        readers = [s for op in graph.readers[sent.tensor] if (s := step.span[op.name]).device == sent.destination]
        assert sent.end <= min(s.start for s in readers)
    check_trace(chrome_trace(graph, plan.cluster, step)["traceEvents"])
    assert ran.data["step_seconds"]["all"] != []
    assert step.peak_bytes == ran.data["peak_bytes"]
    table = json.loads((tmp_path / "cache" / "ops.json").read_text())
    assert table["seconds"] == ran.data["ops"]
    text = cli("profile", path, "--steps", 2, "--warmup", 0).out
    assert "x the prediction" in text
    assert max(map(len, text.splitlines())) <= 80


def test_profile_makes_the_table_that_it_is_to_write(cli, tmp_path: Path) -> None:
    plan, table = tmp_path / "mlp.json", tmp_path / "new.json"
    assert cli("place", "models:mlp", "--set", "width=64", "--cluster", "2x1GiB", "-o", plan).code == 0
    steps = ("--steps", 1, "--warmup", 0, "--table", table)
    ran = cli("profile", plan, *steps, "--keep-table")
    assert (ran.code, "error[B309]" in ran.err, table.exists()) == (2, True, False)
    ran = cli("profile", plan, *steps, "--json")
    assert ran.code == 0, ran.err
    assert json.loads(table.read_text())["seconds"] == ran.data["ops"]
    assert cli("explain", plan, "--table", table).code == 0


@pytest.mark.parametrize("option", ["--table", "-o"])
def test_profile_says_before_the_steps_that_it_cannot_write(cli, option: str, tmp_path: Path) -> None:
    ran = cli("profile", "models:mlp", "--steps", 100_000_000, option, tmp_path / "none" / "step.json")
    assert (ran.code, ran.out) == (2, "")
    assert "error[B404]" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_devices_writes_a_cluster_that_is_read_back(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baechi.profile.calibrate._SECONDS", 0.01)
    path = tmp_path / "here.toml"
    ran = cli("devices", "--measure", "--devices", 3, "--memory", "1GiB", "-o", path, "--json")
    assert ran.code == 0, ran.err
    cluster = parse_cluster(str(path))
    assert cluster.to_dict() == ran.data["cluster"]
    assert [d.memory_bytes for d in cluster.devices] == [2**30] * 3
    fits = ran.data["fits"]
    assert list(fits["devices"]) == ["cpu:0", "cpu:1", "cpu:2"]
    assert cluster.devices[0].flops_per_second == {"float32": fits["devices"]["cpu:0"]["float32"]["rate"]}
    assert (cluster.link.latency_seconds, cluster.link.bytes_per_second) == (
        fits["link"]["least_seconds"],
        fits["link"]["rate"],
    )
    assert path.read_text().count("# +-") == 2 + 3 * 3
    text = cli("devices", "--measure", "-o", path).out
    assert [line[:30].split()[-2] for line in text.splitlines()[1:]] == ["float32", "memory", "link"]
    assert max(map(len, text.splitlines())) <= 80
    ran = cli("devices", "--devices", 3)
    assert (ran.code, "error[B108]" in ran.err) == (2, True)
