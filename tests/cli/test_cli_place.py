"""`baechi place`, on files whose best step is known by hand, and on a captured model."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from baechi.errors import BaechiError
from baechi.ir.json import read_plan


def test_a_fork_is_placed_on_two_devices(cli, fork_join: Path, tmp_path: Path) -> None:
    ran = cli("place", fork_join, "--cluster", "2x1KiB", "--placer", "auto", "-o", tmp_path / "plan.json")
    assert ran.code == 0
    assert "step        2.00 s predicted" in ran.out
    assert "one device  3.00 s" in ran.out
    assert f"wrote {tmp_path / 'plan.json'}" in ran.err
    plan = read_plan(tmp_path / "plan.json")
    assert plan.device["left"] != plan.device["right"]
    assert plan.predicted.step_seconds == pytest.approx(2.0, abs=1e-3)  # two transfers over the local link


def test_json_is_the_plan_that_is_written(cli, fork_join: Path, tmp_path: Path) -> None:
    args = "place", fork_join, "--cluster", "2x1KiB", "--placer", "m-etf", "--seed", 3, "--json"
    ran = cli(*args, "-o", tmp_path / "plan.json")
    assert ran.data == json.loads((tmp_path / "plan.json").read_text())
    assert ran.data["schema"] == "baechi/plan/1"
    assert ran.data["seed"] == 3
    assert set(ran.data["device"]) == {"in", "left", "right", "out"}


def test_text_is_80_columns_wide(cli, chain: Path) -> None:
    ran = cli("place", chain, "--placer", "m-topo")
    assert max(map(len, ran.out.splitlines())) <= 80


def test_a_workload_brings_its_devices(cli, chain: Path) -> None:
    plan = cli("place", chain, "--placer", "m-etf", "--json").data
    assert [(d["name"], d["memory_bytes"]) for d in plan["cluster"]["device"]] == [("acc:0", 10), ("acc:1", 10)]
    assert plan["cluster"]["contention"] == "parallel"
    assert plan["predicted"]["step_seconds"] == pytest.approx(0.031)  # 3 x 10 ms and one transfer: 15 bytes, caps of 10


def test_memory_and_devices_change_the_cluster(cli, chain: Path) -> None:
    plan = cli("place", chain, "--placer", "m-etf", "--memory", "5", "--devices", 3, "--json").data
    assert [d["memory_bytes"] for d in plan["cluster"]["device"]] == [5, 5, 5]
    assert plan["predicted"]["step_seconds"] == pytest.approx(0.032)
    assert set(plan["predicted"]["peak_bytes"].values()) == {5}


def test_a_cluster_for_a_workload_keeps_its_contention_and_shares_no_cores(cli, chain: Path) -> None:
    cluster = cli("place", chain, "--cluster", "3x1KiB", "--placer", "single", "--json").data["cluster"]
    assert (cluster["contention"], cluster.get("cores", {})) == ("parallel", {})
    assert (
        cli("place", chain, "--cluster", "3x1KiB", "--contention", "duplex", "--json").data["cluster"]["contention"]
        == "duplex"
    )


def test_colocation_can_be_ignored(cli, tmp_path: Path) -> None:
    nodes = [{"id": i, "fpgaLatency": 1.0, "size": 5.0, "colorClass": 7} for i in range(2)]
    data = {"maxSizePerFPGA": 5.0, "maxFPGAs": 2, "nodes": nodes, "edges": []}
    path = tmp_path / "pair.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    together = cli("place", path, "--placer", "m-etf")
    assert (together.code, together.out) == (1, "")
    assert "error[B501]" in together.err
    assert "group '7', with what it holds while '0' runs, needs 10 B on one device, the largest has 5 B" in together.err
    apart = cli("place", path, "--placer", "m-etf", "--ignore-colocation", "--json").data
    assert apart["device"]["0"] != apart["device"]["1"]


def test_a_files_own_cpu_takes_part_and_the_plan_remembers_it(cli, tmp_path: Path) -> None:
    """Ops of 10 ms, whose transfers of 50 ms an accelerator pays for and the CPU, at 13 ms, does not."""
    nodes = [{"id": i, "fpgaLatency": 10.0, "cpuLatency": 13.0} for i in range(2)]
    edges = [{"sourceId": 0, "destId": 1, "cost": 50.0}]
    path, plan = tmp_path / "two.json", tmp_path / "plan.json"
    path.write_text(json.dumps({"maxSizePerFPGA": 9, "maxFPGAs": 1, "maxCPUs": 1, "nodes": nodes, "edges": edges}))
    args = "place", path, "--placer", "exact", "--objective", "throughput", "--set", "cpus=1", "-o", plan, "--json"
    made = cli(*args).data
    assert made["predicted"]["load_seconds"] == {"acc:0": 0.02, "cpu:0": 0.0}
    assert made["graph"]["target"]["options"] == {"cpus": 1}
    path.write_text(path.read_text().replace("50.0", "1.0"))
    assert cli(*args).data["predicted"]["load_seconds"] == {"acc:0": 0.011, "cpu:0": 0.013}
    assert cli("report", plan, "-o", tmp_path / "plan.html").code == 0


@pytest.mark.parametrize("given", ["cpus=2", "cpus=yes", "width=3"])
def test_what_a_file_does_not_take(cli, chain: Path, given: str) -> None:
    ran = cli("place", chain, "--set", given)
    assert ran.code == 2
    assert "error[B102]" in ran.err


def test_an_expert_file_is_followed(cli, chain: Path, tmp_path: Path) -> None:
    expert = tmp_path / "expert.json"
    expert.write_text(json.dumps({"fpgas": [{"nodes": [1]}, {"nodes": [0, 2]}]}), encoding="utf-8")
    plan = cli("place", chain, "--placer", "expert", "--expert", expert, "--json").data
    assert plan["device"] == {"0": "acc:1", "1": "acc:0", "2": "acc:1"}


def test_a_model_is_extracted_and_placed(cli) -> None:
    ran = cli("place", "models:mlp", "--batch", 4, "--set", "width=16", "--cluster", "2x90%", "--placer", "auto")
    assert ran.code == 0
    assert "mlp, batch 4, on 2 x cpu of" in ran.out
    assert "13.0 k" in ran.out  # 784 x 16 + 16 + 16 x 16 + 16 + 16 x 10 + 10 = 13,002
    assert max(map(len, ran.out.splitlines())) <= 80


def test_the_models_expert_splits_by_the_number_of_devices(cli) -> None:
    plan = cli("place", "models:mlp", "--batch", 4, "--cluster", "3x1GiB", "--placer", "expert", "--json").data
    assert not [tensor for tensor, _, _ in plan["transfers"] if tensor.startswith("p_")]  # weights stay where they are
    assert plan["device"]["p_hidden_0_0_weight"] == "cpu:0"
    assert plan["device"]["p_hidden_1_0_weight"] == "cpu:1"
    assert plan["device"]["p_classifier_weight"] == "cpu:2"


def test_equal_commands_give_equal_plans(cli, fork_join: Path) -> None:
    first, second = (cli("place", fork_join, "--cluster", "3x1KiB", "--seed", 1, "--json").data for _ in range(2))
    first["placer"].pop("seconds"), second["placer"].pop("seconds")
    assert first == second


def test_options_reach_the_placer(cli, fork_join: Path) -> None:
    args = "place", fork_join, "--cluster", "2x1KiB", "--placer", "m-sct", "--option", "threshold=0.5", "--json"
    assert cli(*args).data["placer"]["options"]["threshold"] == 0.5


def test_only_options_of_ones_own_are_printed(cli, fork_join: Path) -> None:
    args = "place", fork_join, "--cluster", "2x1KiB", "--placer", "m-sct"
    assert "placer      m-sct, " in cli(*args).out
    assert "placer      m-sct (threshold=0.5), " in cli(*args, "--option", "threshold=0.5").out


def test_sensitivity_is_part_of_the_json(cli, fork_join: Path) -> None:
    args = "place", fork_join, "--cluster", "1x1KiB", "--placer", "single", "--json"
    assert "sensitivity" not in cli(*args).data
    found = cli(*args, "--perturb", "20%").data["sensitivity"]
    assert (found["spread"], found["samples"]) == (0.2, 50)
    assert 2.4 <= found["least"] < found["mean"] < found["most"] <= 3.6  # 3 seconds in all, on one device


SAVED = "--batch", 512, "--set", "depth=8", "--set", "width=512", "--cluster", "1x28MB"
"""A model that needs 30 MB, 20 of which persist."""


def test_what_less_memory_may_help_is_said(cli) -> None:
    ran = cli("place", "models:mlp", *SAVED, "--placer", "m-etf")
    assert (ran.code, "error[B501]" in ran.err) == (1, True)
    assert "less memory for more time: --recompute auto or --offload auto" in ran.err
    too_much = cli("place", "models:mlp", *SAVED, "--placer", "m-etf", "--memory", "10MB")
    assert (too_much.code, "--recompute" in too_much.err) == (1, False)  # what persists is too much


def test_compare_trades_time_for_memory(cli) -> None:
    args = "compare", "models:mlp", *SAVED, "--placers", "m-etf"
    assert cli(*args).code == 1
    ran = cli(*args, "--recompute", "auto", "--run", "--steps", 1, "--json")
    (row,) = ran.data["placers"]
    again = row["lightened"]["recompute"]
    assert (ran.code, row["found"], again > 0) == (0, True, True)
    assert row["predicted"]["peak_bytes"]["cpu:0"] <= 28e6
    assert row["measured"]["step_seconds"] > 0
    assert f"m-etf: {again} ops run again" in cli(*args, "--recompute", "auto").out


def test_measured_times_are_kept_and_used(cli, tmp_path: Path) -> None:
    table = tmp_path / "ops.json"
    args = "place", "models:mlp", "--batch", 2, "--set", "width=8", "--cluster", "1x1GiB", "--table", table, "--json"
    measured = cli(*args, "--measure", "--placer", "single")
    assert f"wrote {table}" in measured.err
    assert "have measured times" in measured.err
    times = json.loads(table.read_text())["seconds"]["cpu"]
    again = cli(*args, "--placer", "single")
    assert again.data["predicted"] == measured.data["predicted"]
    without = cli(*args[:-3], "--json", "--placer", "single")
    assert without.data["predicted"]["step_seconds"] != measured.data["predicted"]["step_seconds"]
    assert measured.data["predicted"]["step_seconds"] >= max(times.values())


PAIR = (
    "place",
    "models:mlp",
    "--batch",
    8,
    "--set",
    "width=64",
    "--cluster",
    "2x1GiB",
    "--placer",
    "round-robin",
    "--measure",
)


def test_a_plan_of_several_processes_is_tried_before_the_one_that_counts(cli, tmp_path: Path) -> None:
    table = tmp_path / "ops.json"
    plan = tmp_path / "plan.json"
    tried = cli(*PAIR, "--table", table, "-o", plan, "--json")
    assert (tried.code, tried.err.count("note: tried for some steps of ")) == (0, 1)
    assert len(set(tried.data["device"].values())) == 2
    kept = json.loads(table.read_text())
    again = cli(*PAIR[:-1], "--table", table, "--json")  # with the times of the trial, which were kept
    assert again.data["predicted"]["load_seconds"] == tried.data["predicted"]["load_seconds"]
    simulated = cli("explain", plan, "--table", table, "--json")
    assert simulated.data["step_seconds"] == tried.data["predicted"]["step_seconds"]
    assert "op times changed" not in simulated.err
    assert "tried" not in again.err
    assert json.loads(table.read_text()) == kept


def test_without_a_trial_the_times_of_one_process_stay(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from baechi.cli import carriers

    def full(*_: object) -> None:
        raise BaechiError("B610", "this machine has 1 MiB")

    monkeypatch.setattr(carriers, "_PYTORCH", carriers._PYTORCH._replace(profile=full))
    ran = cli(*PAIR, "--table", tmp_path / "ops.json")
    assert ran.code == 0
    assert "note: no trial, so ops have the times that they had: this machine has 1 MiB" in ran.err


NET = """
import torch
def make(batch=4, width=8):
    net = torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.ReLU(), torch.nn.Linear(width, 1))
    return {"module": net, "args": (torch.ones(batch, 3),), "loss": torch.sum, "optimizer": "adam"}
def broken(batch=4):
    raise ValueError("no data here")
"""


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of a person's own in the working directory."""
    (tmp_path / "own_net.py").write_text(NET, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "own_net"
    sys.modules.pop("own_net", None)


def test_own_code_is_placed_and_run(cli, own_code: str, tmp_path: Path) -> None:
    args = "place", f"{own_code}:make", "--batch", 6, "--set", "width=16", "--cluster", "2x1MiB"
    assert cli(*args, "-o", tmp_path / "p.json").code == 0
    ran = cli("run", tmp_path / "p.json", "--steps", 2, "--json")
    assert ran.code == 0, ran.err
    assert ran.data["losses"] == sorted(ran.data["losses"], reverse=True)
    assert ran.data["graph"]["target"]["batch"] == 6


def test_own_code_that_fails_says_where(cli, own_code: str) -> None:
    ran = cli("place", f"{own_code}:broken")
    assert ran.code == 2
    assert "error[B109]: 'own_net:broken' raised ValueError: no data here" in ran.err
    assert "own_net.py:7" in ran.err
    ran = cli("place", f"{own_code}:make", "--set", "depth=3")
    assert (ran.code, "error[B102]" in ran.err) == (2, True)
