"""The other verbs, on files whose numbers are known by hand and on a small model."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from baechi.ir.json import read_plan
from baechi.models.base import get


def place_mlp(cli, path: Path, *more: object) -> None:
    model = "models:mlp", "--batch", 8, "--set", "width=64", "--set", "depth=3"
    args = *model, "--cluster", "2x1GiB", "--placer", "expert"
    assert cli("place", *args, "-o", path, *more).code == 0


def plain_losses(steps: int, seed: int) -> list[float]:
    """The same training by torch alone."""
    spec = get("mlp", width=64, depth=3)
    torch.manual_seed(seed)
    model = spec.build()
    (images,), labels = spec.example(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_run_trains_as_torch_does(cli, tmp_path: Path) -> None:
    place_mlp(cli, tmp_path / "plan.json")
    ran = cli("run", tmp_path / "plan.json", "--steps", 3, "--warmup", 2, "--seed", 5, "--json")
    assert (ran.code, ran.data["schema"]) == (0, "baechi/run/1")
    assert ran.data["losses"] == pytest.approx(plain_losses(5, 5), rel=1e-5)
    assert len(ran.data["step_seconds"]["all"]) == 3
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert ran.data["predicted"] == plan["predicted"]
    assert set(ran.data["peak_bytes"]) == {"cpu:0", "cpu:1"}
    for device, measured in ran.data["peak_bytes"].items():
        assert measured == pytest.approx(plan["predicted"]["peak_bytes"][device], rel=0.1)


def test_run_prints_measured_beside_predicted(cli, tmp_path: Path) -> None:
    place_mlp(cli, tmp_path / "plan.json")
    out = cli("run", tmp_path / "plan.json", "--steps", 2).out
    assert "x the prediction of" in out
    assert "device  measured peak  predicted  ratio" in out
    assert max(map(len, out.splitlines())) <= 80


def test_run_refuses_devices_and_memory_that_are_not_here(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = "place", "models:mlp", "--batch", 8, "--placer", "m-topo"
    assert cli(*args, "--cluster", "999xrtx3060", "-o", tmp_path / "gpu.json").code == 0
    ran = cli("run", tmp_path / "gpu.json")
    assert (ran.code, "error[B606]" in ran.err) == (2, True)
    place_mlp(cli, tmp_path / "plan.json")
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["predicted"]["peak_bytes"] = dict.fromkeys(plan["predicted"]["peak_bytes"], 2**55)
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    ran = cli("run", tmp_path / "plan.json")
    assert (ran.code, "error[B610]" in ran.err) == (2, True)


def test_compare_ranks_placers(cli, fork_join: Path) -> None:
    ran = cli("compare", fork_join, "--cluster", "2x1KiB", "--json")
    assert ran.data["schema"] == "baechi/compare/1"
    assert ran.data["one_device"]["step_seconds"] == pytest.approx(3.0)
    steps = {row["placer"]: row["predicted"]["step_seconds"] for row in ran.data["placers"]}
    assert list(steps) == ["single", "contiguous", "teams", "round-robin", "m-topo", "heft", "m-etf", "m-sct", "auto"]
    assert steps["single"] == pytest.approx(3.0)
    assert ran.data["bounds"]["critical path"] == pytest.approx(2.0)
    assert 2.0 < ran.data["bounds"]["step_seconds"] <= steps["auto"] * (1 + 1e-9)
    assert steps["auto"] == min(steps.values()) == pytest.approx(2.0, abs=1e-3)


def test_compare_says_what_does_not_fit(cli, chain: Path) -> None:
    ran = cli("compare", chain, "--placers", "single,m-etf")
    assert ran.code == 0
    assert "single: does not fit: acc:0 needs 15 B, it has 10 B" in ran.out
    assert "m-etf   31.0 ms" in ran.out
    none = cli("compare", chain, "--placers", "single", "--json")
    assert none.code == 1
    assert none.data["placers"] == [
        {"placer": "single", "found": False, "why": "does not fit: acc:0 needs 15 B, it has 10 B", "proved": False}
    ]


@pytest.mark.parametrize(("limit", "code"), [("1s", 1), ("1999ms", 1), ("3", 0), ("2.5s", 0), ("0.9x", 1), ("1.1x", 0)])
def test_compare_fails_over_a_limit(cli, fork_join: Path, limit: str, code: int) -> None:
    ran = cli("compare", fork_join, "--cluster", "2x1KiB", "--placers", "m-etf", "--fail-over", limit)
    assert ran.code == code
    assert "m-etf" in ran.out
    args = "--placers", "m-etf", "--fail-over", limit, "--json"
    assert cli("compare", fork_join, "--cluster", "2x1KiB", *args).data["fail_over"]["fired"] == bool(code)


def test_compare_runs(cli) -> None:
    args = "compare", "models:mlp", "--batch", 4, "--set", "width=16", "--cluster", "2x1GiB"
    rows = cli(*args, "--placers", "single,expert", "--run", "--steps", 2, "--json").data["placers"]
    assert [row["placer"] for row in rows] == ["single", "expert"]
    assert all(row["measured"]["step_seconds"] > 0 for row in rows)


def test_estimate_counts_a_models_memory(cli) -> None:
    args = "estimate", "models:mlp", "--batch", 8, "--set", "width=32"
    ran = cli(*args, "--json")
    weights = 784 * 32 + 32 + 32 * 32 + 32 + 32 * 10 + 10
    assert ran.data["parameters"] == weights
    assert ran.data["memory"]["parameters"] == 4 * weights
    assert ran.data["memory"]["optimiser state"] == 4 * weights  # momentum
    assert sum(ran.data["memory"].values()) == ran.data["peak_bytes"]
    products = 784 * 32 + 32 * 32 + 32 * 10
    assert ran.data["flops"]["forward"] == pytest.approx(2 * 8 * products, rel=0.02)
    assert all(device["fits"] for device in ran.data["devices"])
    text = cli(*args, "--cluster", "2x50%").out
    assert "no" in next(line for line in text.splitlines() if line.startswith("cpu")).split()
    assert max(map(len, text.splitlines())) <= 80


def test_explain_accounts_for_the_whole_step(cli, fork_join: Path, tmp_path: Path) -> None:
    args = "place", fork_join, "--cluster", "2x1KiB", "--placer", "auto"
    assert cli(*args, "-o", tmp_path / "p.json").code == 0
    ran = cli("explain", tmp_path / "p.json", "--json")
    assert ran.data["schema"] == "baechi/explain/1"
    path = ran.data["critical_path"]
    parts = sum(path["compute_seconds"].values()) + path["transfer_seconds"] + path["waiting_seconds"]
    assert parts == pytest.approx(ran.data["step_seconds"])
    assert sum(path["compute_seconds"].values()) == pytest.approx(2.0)
    for device in ran.data["devices"]:
        assert sum(device["by_kind"].values()) == device["peak_bytes"]
    assert sum(device["busy_seconds"] for device in ran.data["devices"]) == pytest.approx(3.0)


def test_explain_names_modules_and_lines(cli, tmp_path: Path) -> None:
    place_mlp(cli, tmp_path / "plan.json")
    out = cli("explain", tmp_path / "plan.json").out
    assert out.splitlines()[2].startswith("A step takes ")
    assert "hidden.0.0" in out
    assert "mlp.py:" in out
    assert max(map(len, out.splitlines())) <= 80


def test_explain_notices_other_op_times(cli, tmp_path: Path) -> None:
    place_mlp(cli, tmp_path / "plan.json")
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["predicted"]["step_seconds"] *= 2
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    ran = cli("explain", tmp_path / "plan.json", "--json")
    assert "op times changed" in ran.err
    assert ran.data["step_seconds"] == pytest.approx(plan["predicted"]["step_seconds"] / 2)
    op = next(iter(plan["device"]))
    why = cli("explain", tmp_path / "plan.json", op, "--json").data
    assert why["objective_seconds"] == ran.data["step_seconds"]


def test_devices_lists_presets_and_this_machine(cli) -> None:
    ran = cli("devices", "--json")
    assert len(ran.data["presets"]) >= 12
    assert ran.data["this_machine"]["cores"] >= 1
    text = cli("devices").out
    assert "rtx2080" in text
    assert max(map(len, text.splitlines())) <= 80


def test_doctor_finds_this_machine_fit(cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran = cli("doctor", "--json")
    assert (ran.code, ran.data["good"]) == (0, True)
    assert {"python", "torch", "ortools", "numba", "cuda", "cache"} <= {c["name"] for c in ran.data["checks"]}
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BAECHI_CACHE", str(tmp_path / "file" / "cache"))
    bad = cli("doctor")
    assert bad.code == 1
    assert "BAD  cache" in bad.out


def test_compare_writes_the_best_plan(cli, fork_join: Path, tmp_path: Path) -> None:
    best = tmp_path / "best.json"
    cli("compare", fork_join, "--cluster", "2x1KiB", "--placers", "single,m-etf", "-o", best)
    rows = {row["placer"]: row for row in cli("compare", fork_join, "--cluster", "2x1KiB", "--json").data["placers"]}
    plan = read_plan(best)
    assert plan.placer.name == "m-etf"
    assert (
        plan.predicted.step_seconds
        == rows["m-etf"]["predicted"]["step_seconds"]
        < rows["single"]["predicted"]["step_seconds"]
    )
