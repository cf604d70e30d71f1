"""The command line on TensorFlow steps: placed, run in one process and in servers, and what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow")

from baechi.cli.saved import saved_target
from baechi.ir.json import read_plan

ROOT = Path(__file__).parents[2]
GNMT = ("models:gnmt", "--framework", "tensorflow", "--batch", "2", "--set", "length=3", "--set", "layers=2")
SMALL = ("--set", "units=8", "--set", "vocab=12")
OWN = "tests.cli.tf_steps"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tensorflow")


@pytest.fixture
def gnmt(cli: Any, kept: Path) -> Path:
    """A plan over two devices; made once."""
    path = kept / "gnmt.json"
    if not path.exists():
        ran = cli("place", *GNMT, *SMALL, "--cluster", "2x64MiB", "--placer", "round-robin", "-o", path)
        assert ran.code == 0, ran.err
    return path


def test_a_model_of_ours_is_placed_and_run(cli: Any, gnmt: Path) -> None:
    plan = read_plan(gnmt)
    assert plan.target["framework"] == "tensorflow"
    ran = cli("run", gnmt, "--steps", 2, "--plain", "--json")
    assert ran.code == 0, ran.err
    assert len(ran.data["losses"]) == 3
    assert ran.data["losses"] == pytest.approx(ran.data["plain"][0]["losses"], rel=1e-5)
    assert ran.data["losses"][-1] < ran.data["losses"][0]
    graph = saved_target(plan).graph
    for device, measured in ran.data["peak_bytes"].items():  # in one process what is received is the sender's memory
        variables = sum(op.persistent_bytes for op in graph.ops if plan.device[op.name] == device)
        assert variables < measured < 1.5 * plan.predicted.peak_bytes[device]
    again = cli("run", gnmt, "--steps", 1, "--warmup", 0, "--seed", 5, "--json")
    assert again.data["losses"][0] != ran.data["losses"][0]


def test_other_verbs_know_it(cli: Any, gnmt: Path) -> None:
    assert "cpu:1" in cli("explain", gnmt).out
    estimated = cli("estimate", *GNMT, *SMALL, "--json").data
    assert estimated["memory"]["parameters"] == 4 * estimated["parameters"]


def run(*argv: object) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "baechi", "run", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)


def test_servers_train_to_the_same_numbers(cli: Any, gnmt: Path) -> None:
    apart = run(gnmt, "--workers", "processes", "--steps", 2, "--json")
    assert apart.returncode == 0, apart.stderr
    assert "Socket" not in apart.stderr
    here = cli("run", gnmt, "--steps", 2, "--json").data
    assert json.loads(apart.stdout)["losses"] == pytest.approx(here["losses"], rel=1e-5)


def test_a_server_over_its_cap(cli: Any, kept: Path) -> None:
    path = kept / "wide.json"
    assert cli("place", f"{OWN}:wide", "--cluster", "2x64MiB", "--placer", "round-robin", "-o", path).code == 0
    data = json.loads(path.read_text(encoding="utf-8"))
    data["cluster"]["device"][1]["memory_bytes"] = 2**22
    path.write_text(json.dumps(data), encoding="utf-8")
    ran = run(path, "--workers", "processes", "--steps", 1)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "error[B615]: the worker of 'cpu:1' passed its cap of 4.00 MiB" in ran.stderr


@pytest.mark.parametrize("name", ["step", "pair", "model"])
def test_a_persons_own_step(cli: Any, tmp_path: Path, name: str) -> None:
    cluster = ("--cluster", "2x1MiB", "--placer", "round-robin")
    assert cli("place", f"{OWN}:{name}", *cluster, "-o", tmp_path / "p.json").code == 0
    assert read_plan(tmp_path / "p.json").target["framework"] == "tensorflow"
    ran = cli("run", tmp_path / "p.json", "--steps", 3, "--json")
    assert ran.code == 0, ran.err
    assert ran.data["losses"][-1] < ran.data["losses"][0]


def test_measured_ops_are_used(cli: Any, tmp_path: Path) -> None:
    table = tmp_path / "t.json"
    ran = cli("place", f"{OWN}:pair", "--cluster", "1x1MiB", "--placer", "single", "--measure", "--table", table)
    assert ran.code == 0, ran.err
    seconds = json.loads(table.read_text())["seconds"]["cpu"]
    assert any(key.startswith("tf.MatMul") for key in seconds)
    assert all(0 <= s < 10 for s in seconds.values())
    assert "have measured times" in ran.err


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["place", f"{OWN}:pair", "--microbatches", "2"], "B108"),
        (["place", f"{OWN}:pair", "--recompute", "auto", "--cluster", "1x900B", "--placer", "single"], "B108"),
        (["place", f"{OWN}:nothing"], "B106"),
        (["place", f"{OWN}:nothing", "--framework", "tensorflow"], "B106"),
        (["place", f"{OWN}:eager"], "B711"),
        (["place", "models:gpt2", "--framework", "tensorflow"], "B101"),
        (["place", "models:gnmt", "--framework", "jax"], "B108"),
    ],
)
def test_what_is_refused(cli: Any, argv: list[str], code: str) -> None:
    ran = cli(*argv)
    assert (ran.code, ran.out) in ((1, ""), (2, "")), ran.err
    assert ran.err.count("error[") == 1
    assert f"error[{code}]: " in ran.err


def test_checkpoints_are_refused(cli: Any, gnmt: Path, tmp_path: Path) -> None:
    ran = cli("run", gnmt, "--checkpoint", tmp_path / "kept")
    assert (ran.code, "error[B108]" in ran.err) == (2, True)
