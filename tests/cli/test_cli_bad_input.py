"""Bad input gives one error with a code and an exit code, no traceback, and no half-written file."""

import json
from pathlib import Path
from typing import Any

import pytest

from baechi.ir.json import graph_to_dict, read_graph


def workload(**changes: Any) -> dict[str, Any]:
    nodes = [{"id": i, "fpgaLatency": 10.0, "size": 5.0} for i in range(2)]
    edges = [{"sourceId": 0, "destId": 1, "cost": 1.0}]
    return {"maxSizePerFPGA": 10.0, "maxFPGAs": 2, "nodes": nodes, "edges": edges, **changes}


def refused(ran: Any, code: str, exit_code: int = 2) -> str:
    """The error's text, after what holds of every error."""
    assert ran.code == exit_code, ran.err
    assert ran.out == ""
    assert ran.err.count("error[") == 1
    assert f"error[{code}]: " in ran.err
    assert "Traceback" not in ran.err
    return str(ran.err)


@pytest.mark.parametrize("command", ["place", "compare", "estimate"])
def test_unknown_model(cli, command: str) -> None:
    assert "did you mean 'mlp'?" in refused(cli(command, "models:mpl", "--cluster", "2x1GiB"), "B101")


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["place", "models:mlp", "--placer", "m-stc"], "B505"),
        (["place", "models:mlp", "--placer", "m-sct", "--option", "treshold=1"], "B505"),
        (["place", "models:mlp", "--placer", "m-sct", "--option", "threshold=much"], "B505"),
        (["place", "models:mlp", "--option", "threshold"], "B102"),
        (["place", "models:mlp", "--set", "widht=3"], "B102"),
        (["place", "models:mlp", "--set", "width=-3"], "B102"),
        (["place", "models:mlp", "--batch", "0"], "B108"),
        (["place", "models:mlp", "--seed", "x"], "B108"),
        (["place", "models:mlp", "--contention", "none"], "B108"),
        (["place", "mlp"], "B106"),
        (["place", "no.such.module:thing"], "B106"),
        (["place", "os:no_such"], "B106"),
        (["place"], "B108"),
        (["plaec", "models:mlp"], "B108"),
        ([], "B108"),
        (["place", "models:mlp", "--cluster", "4x8Gibi"], "B306"),
        (["place", "models:mlp", "--cluster", "4xrtx2081"], "B307"),
        (["place", "models:mlp", "--cluster", "no.toml"], "B308"),
        (["place", "models:mlp", "--table", "no.json", "--cluster", "1x1GiB"], "B309"),
        (["place", "no.json"], "B110"),
        (["run", "no.json"], "B401"),
        (["explain", "no.json"], "B401"),
        (["compare", "models:mlp", "--placers", "single,m-stc"], "B505"),
        (["compare", "models:mlp", "--fail-over", "soon"], "B108"),
    ],
)
def test_misuse(cli, argv: list[str], code: str) -> None:
    refused(cli(*argv), code)


def test_cluster_file_with_a_typo(cli, chain: Path, tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text('[[device]]\nname = "a"\nmemry = "8GiB"\n', encoding="utf-8")
    err = refused(cli("place", chain, "--cluster", path), "B305")
    assert "memry" in err
    assert "did you mean 'memory'?" in err


def test_cap_below_the_largest_group_is_proved(cli, tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    nodes = [{"id": i, "fpgaLatency": 1.0, "size": 4.0, "colorClass": i // 2} for i in range(4)]
    path.write_text(json.dumps(workload(nodes=nodes, edges=[])), encoding="utf-8")
    err = refused(cli("place", path, "--memory", "7", "--devices", "9", "-o", tmp_path / "plan.json"), "B501", 1)
    assert "needs 8 B" in err
    assert not (tmp_path / "plan.json").exists()


def test_a_plan_for_another_graph(cli, fork_join: Path, tmp_path: Path) -> None:
    assert cli("place", fork_join, "--cluster", "2x1KiB", "--placer", "single", "-o", tmp_path / "p.json").code == 0
    data = graph_to_dict(read_graph(fork_join))
    data["ops"][0]["seconds"] = 9.0
    fork_join.write_text(json.dumps(data), encoding="utf-8")
    assert "another graph" in refused(cli("explain", tmp_path / "p.json"), "B402")


def test_a_plan_that_does_not_say_where_its_graph_is_from(cli, fork_join: Path, tmp_path: Path) -> None:
    plan = cli("place", fork_join, "--cluster", "2x1KiB", "--placer", "single", "--json").data
    plan["graph"]["target"] = {"name": "net"}
    (tmp_path / "p.json").write_text(json.dumps(plan), encoding="utf-8")
    refused(cli("run", tmp_path / "p.json"), "B406")


def test_a_file_of_costs_cannot_run(cli, chain: Path, tmp_path: Path) -> None:
    assert cli("place", chain, "--placer", "m-etf", "-o", tmp_path / "p.json").code == 0
    refused(cli("run", tmp_path / "p.json"), "B603")
    refused(cli("place", chain, "--measure"), "B603")


def test_cycle(cli, tmp_path: Path) -> None:
    edges = [{"sourceId": 0, "destId": 1, "cost": 1.0}, {"sourceId": 1, "destId": 0, "cost": 1.0}]
    (tmp_path / "w.json").write_text(json.dumps(workload(edges=edges)), encoding="utf-8")
    assert "0 -> 1 -> 0" in refused(cli("place", tmp_path / "w.json"), "B207")


def test_truncated(cli, chain: Path, tmp_path: Path, fork_join: Path) -> None:
    chain.write_text(chain.read_text()[:-20], encoding="utf-8")
    assert "truncated" in refused(cli("place", chain), "B103")
    assert cli("place", fork_join, "--cluster", "2x1KiB", "-o", tmp_path / "p.json").code == 0
    (tmp_path / "p.json").write_text((tmp_path / "p.json").read_text()[:200], encoding="utf-8")
    refused(cli("run", tmp_path / "p.json"), "B402")


@pytest.mark.parametrize("cost", ["NaN", "Infinity", "-1"])
def test_costs_that_are_no_numbers(cli, tmp_path: Path, cost: str) -> None:
    text = json.dumps(workload()).replace('"fpgaLatency": 10.0', f'"fpgaLatency": {cost}')
    (tmp_path / "w.json").write_text(text, encoding="utf-8")
    refused(cli("place", tmp_path / "w.json"), "B206")


def test_not_text(cli, tmp_path: Path) -> None:
    (tmp_path / "w.json").write_bytes(b"\xff\xfe\x00{}")
    refused(cli("place", tmp_path / "w.json"), "B110")


def test_a_table_that_is_none(cli, fork_join: Path, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"schema": "baechi/table/1", "seconds": {"cpu": {"k": "fast"}}}')
    refused(cli("place", fork_join, "--cluster", "1x1KiB", "--table", tmp_path / "t.json"), "B310")


def test_full_disk(cli, fork_join: Path) -> None:
    refused(cli("place", fork_join, "--cluster", "2x1KiB", "-o", "/dev/full"), "B404")


def test_no_such_directory(cli, fork_join: Path, tmp_path: Path) -> None:
    refused(cli("place", fork_join, "--cluster", "2x1KiB", "-o", tmp_path / "no" / "plan.json"), "B404")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fork_join.json"]
