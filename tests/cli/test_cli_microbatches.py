"""`--microbatches` on the command line: a plan remembers them, and its workers train as gradient accumulation."""

import json
from pathlib import Path
from typing import Any

import pytest

from baechi.ir.json import read_plan
from baechi.profile.plain import train_plain
from baechi.target import load_target

MODEL = ("models:transformer", "--batch", "4", "--set", "layers=1", "--set", "width=16", "--set", "heads=2")
SMALL = ("--set", "ffn=16", "--set", "vocab=40", "--set", "length=5")
CLUSTER = """
[[device]]
name = "cpu:{}"
type = "cpu"
memory_bytes = 4000000000
flops_per_second = {{ float32 = 1e8 }}
bytes_per_second = 1e9
launch_seconds = 1e-6
"""


@pytest.fixture
def placed(cli: Any, tmp_path: Path) -> Path:
    """A plan over two devices."""
    cluster, file = tmp_path / "two.toml", tmp_path / "plan.json"
    cluster.write_text("".join(CLUSTER.format(i) for i in range(2)), encoding="utf-8")
    options = ("--microbatches", "2", "--cluster", cluster, "--placer", "round-robin", "-o", file)
    assert cli("place", *MODEL, *SMALL, *options).code == 0
    return file


def accumulated(target: Any, steps: int) -> tuple[float, ...]:
    job = target.job
    options: Any = {"loss": job.loss, "optimizer": job.optimizer, "optimizer_options": job.optimizer_options}
    plain = train_plain(
        job.build, job.args, job.kwargs, job.target, steps=steps, warmup=0, memory=False, microbatches=2, **options
    )
    return plain.losses


def test_workers_and_threads_train_as_gradient_accumulation(cli: Any, placed: Path) -> None:
    plan = read_plan(placed)
    assert plan.target["microbatches"] == 2
    assert len(set(plan.device.values())) == 2
    known = plan.target
    target = load_target(known["target"], batch=known["batch"], options=known["options"], microbatches=2)
    wanted = accumulated(target, 3)
    for workers in ("threads", "processes"):
        ran = cli("run", placed, "--steps", "2", "--warmup", "1", "--workers", workers, "--json")
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["losses"] == pytest.approx(wanted, rel=1e-5)


def test_training_goes_on_from_a_checkpoint(cli: Any, placed: Path, tmp_path: Path) -> None:
    kept = ("--steps", "1", "--warmup", "0", "--checkpoint", tmp_path / "kept", "--json")
    first = cli("run", placed, *kept)
    second = cli("run", placed, *kept, "--resume")
    known = read_plan(placed).target
    wanted = accumulated(load_target(known["target"], batch=known["batch"], options=known["options"]), 2)
    assert [*first.data["losses"], *second.data["losses"]] == pytest.approx(wanted, rel=1e-5)


def test_the_plain_run_accumulates_too(cli: Any, placed: Path) -> None:
    ran = cli("run", placed, "--steps", "1", "--warmup", "1", "--workers", "threads", "--plain", "--json")
    assert ran.code == 0, ran.err
    assert ran.data["plain"][0]["losses"] == pytest.approx(ran.data["losses"], rel=1e-5)


def test_files_are_unrolled_too(cli: Any, fork_join: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    ran = cli("place", fork_join, "--microbatches", "4", "--cluster", "2x1KiB", "--json", "-o", file)
    assert ran.code == 0, ran.err
    assert all("@" in op for op in ran.data["device"])
    assert cli("explain", file).code == 0


def test_a_batch_that_cannot_be_split_is_an_error(cli: Any) -> None:
    ran = cli("place", *MODEL, *SMALL, "--microbatches", "3", "--cluster", "2x1GiB")
    assert ran.code == 2
    assert "error[B708]: a batch of 4 cannot be split into 3 equal micro-batches" in ran.err
