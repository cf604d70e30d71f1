"""`baechi run` with a process for each device: equal numbers, and what happens when one dies."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from baechi.backends.pytorch.steps import latest
from baechi.cli import workers
from baechi.cli.main import main
from baechi.errors import BaechiError
from baechi.ir.json import read_plan
from baechi.profile.run import train
from baechi.target import Target, load_target

ROOT = Path(__file__).parents[2]
MLP = ("models:mlp", "--batch", "8", "--set", "width=32", "--set", "depth=4", "--set", "inputs=16")
TRANSFORMER = (
    *("models:transformer", "--batch", "2", "--set", "layers=1", "--set", "width=16", "--set", "heads=2"),
    *("--set", "ffn=16", "--set", "vocab=40", "--set", "length=5"),
)
DEVICE = """
[[device]]
name = "cpu:{}"
type = "cpu"
memory_bytes = {}
flops_per_second = {{ float32 = 1e8 }}
bytes_per_second = 1e9
launch_seconds = 1e-6
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def environment(home: Path) -> dict[str, str]:
    names = {"OMP_NUM_THREADS": "1", "BAECHI_CACHE": str(home / "cache"), "PYTHONPATH": str(ROOT)}
    return {**os.environ, **names}


def place(home: Path, name: str, target: Sequence[str], devices: int) -> Path:
    """A plan that uses every device: the links are free, the devices slow."""
    cluster, path = home / f"{devices}.toml", home / f"{name}.json"
    text = "[link]\nlatency_seconds = 1e-7\nbytes_per_second = 1e12\n"
    cluster.write_text(text + "".join(DEVICE.format(i, 2**30) for i in range(devices)), encoding="utf-8")
    assert main(["place", *target, "--cluster", str(cluster), "--placer", "round-robin", "-o", str(path)]) == 0
    assert {device for device, ops in read_plan(path).order.items() if ops} == {f"cpu:{i}" for i in range(devices)}
    return path


def test_where_reused_blocks_leave_holes_that_pass_the_cap_it_runs_again_without(
    home: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = place(home, "holes", MLP, 2)
    heap, runs = {"BAECHI_TEST_HEAP": "1"}, []
    monkeypatch.setattr("baechi.backends.heap.reusing_environment", lambda *_: heap)
    real = workers._run

    def run(plan: Any, target: Any, order: Any, heaps: Any) -> Any:
        runs.append(heaps)
        if heaps:
            raise BaechiError("B615", "the worker of 'cpu:1' passed its cap of 1.00 GiB")
        return real(plan, target, order, heaps)

    monkeypatch.setattr(workers, "_run", run)
    assert cli("run", plan, "--steps", 1).code == 0
    assert runs == [{"cpu:0": heap, "cpu:1": heap}, {}]


@pytest.fixture(scope="module")
def mlp(home: Path) -> Path:
    return place(home, "mlp", MLP, 2)


@pytest.fixture(scope="module")
def transformer(home: Path) -> Path:
    return place(home, "transformer", TRANSFORMER, 4)


def run(environment: dict[str, str], *argv: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "baechi", "run", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)


def saved(path: Path) -> Target:
    known = read_plan(path).target
    return load_target(known["target"], batch=known.get("batch"), options=known.get("options"))


def plain_losses(path: Path, steps: int) -> list[float]:
    """Of the plain model, trained in a plain loop."""
    found = saved(path)
    assert found.job is not None
    assert callable(found.job.loss)
    torch.manual_seed(0)
    module = found.job.build()
    program = found.program
    assert program.optimizer is not None
    optimizer = program.optimizer.make(dict(module.named_parameters()))
    args, kwargs, *rest = found.job.inputs
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = found.job.loss(module(*args, **kwargs), *rest)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_losses_are_those_of_threads_and_of_plain_training(home: Path, environment: dict[str, str]) -> None:
    path = place(home, "two", TRANSFORMER, 2)
    apart = run(environment, path, "--json", "--steps", 3)
    assert (apart.returncode, apart.stderr.count("error")) == (0, 0), apart.stderr
    found = json.loads(apart.stdout)
    plan, target = read_plan(path), saved(path)
    assert target.job is not None
    threads = train(target.program, plan, target.job.build, target.job.inputs, steps=3, memory=False)
    assert len(found["losses"]) == 4
    assert found["losses"] == pytest.approx(list(threads.losses), rel=1e-5)
    assert found["losses"] == pytest.approx(plain_losses(path, 4), rel=1e-5)
    assert found["peak_bytes"].keys() == set(plan.order)
    assert len(found["step_seconds"]["all"]) == 3


@contextlib.contextmanager
def started(environment: dict[str, str], *argv: object) -> "Iterator[subprocess.Popen[str]]":
    command = [sys.executable, "-m", "baechi", "run", *map(str, argv)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def workers_of(process: "subprocess.Popen[str]") -> dict[int, psutil.Process]:
    """The worker processes by rank."""
    found = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "baechi.cli.workers" in child.cmdline():
                found[int(child.environ()["RANK"])] = child
    return found


def wait_for(what: Any, seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


def gone(processes: Sequence[psutil.Process]) -> bool:
    return all(not p.is_running() or p.status() == psutil.STATUS_ZOMBIE for p in processes)


def error_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith(("note", "  help"))]


def test_a_killed_worker_ends_the_run_and_resuming_goes_on(home: Path, mlp: Path, environment: dict[str, str]) -> None:
    kept = home / "kept"
    many = ("--json", "--steps", 1_000_000, "--checkpoint", kept, "--every", 2)
    with started(environment, mlp, *many) as process:
        wait_for(lambda: latest(kept))
        workers = workers_of(process)
        assert workers.keys() == {0, 1}
        workers[1].kill()
        began = time.monotonic()
        out, err = process.communicate(timeout=5)
        assert time.monotonic() - began < 5
        assert process.returncode == 2
        assert out == ""
        assert len(error_lines(err)) == 1, err
        line = error_lines(err)[0]
        assert line.startswith("error[B617]: the worker of 'cpu:1'")
        assert gone(list(workers.values()))
    newest = latest(kept)
    assert newest is not None
    done = int(newest.name.removeprefix("step-"))
    resumed = run(environment, mlp, "--json", "--steps", 3, "--warmup", 0, "--checkpoint", kept, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["losses"] == pytest.approx(plain_losses(mlp, done + 3)[-3:], rel=1e-4)


def test_workers_end_with_their_parent(mlp: Path, environment: dict[str, str]) -> None:
    with started(environment, mlp, "--steps", 1_000_000) as process:
        workers = list(wait_for(lambda: (w := workers_of(process)) and len(w) == 2 and w).values())
        process.kill()
        process.wait()
        wait_for(lambda: gone(workers))


def test_a_worker_over_its_cap(home: Path, environment: dict[str, str]) -> None:
    big = ("models:mlp", "--batch", "64", "--set", "width=4096", "--set", "depth=4")
    path, small = place(home, "big", big, 2), home / "small.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data["cluster"]["device"][0]["memory_bytes"] = 2**20
    small.write_text(json.dumps(data), encoding="utf-8")
    ran = run(environment, small, "--steps", 2)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert len(error_lines(ran.stderr)) == 1, ran.stderr
    line = error_lines(ran.stderr)[0]
    assert line == "error[B615]: the worker of 'cpu:0' passed its cap of 1.00 MiB"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def torchrun(environment: dict[str, str], nodes: int, each: int, *argv: object) -> list[tuple[int, str, str]]:
    """Exit code, output and messages of each of so many agents on this machine."""
    port = free_port()
    options = ["--nnodes", nodes, "--nproc-per-node", each, "--rdzv-backend", "c10d", "--rdzv-id", "baechi"]
    options += ["--rdzv-endpoint", f"127.0.0.1:{port}", "-m", "baechi", *argv]
    command = [sys.executable, "-m", "torch.distributed.run", *map(str, options)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    agents = [subprocess.Popen(command, start_new_session=True, **pipes) for _ in range(nodes)]
    try:
        told = [agent.communicate(timeout=100) for agent in agents]
    finally:
        for agent in agents:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(agent.pid, signal.SIGKILL)
    return [(agent.returncode, *texts) for agent, texts in zip(agents, told, strict=True)]


def test_torchrun_on_two_nodes(transformer: Path, environment: dict[str, str]) -> None:
    ran = torchrun(environment, 2, 2, "run", transformer, "--json", "--steps", 2)
    assert [code for code, _, _ in ran] == [0, 0], ran
    (text,) = [out for _, out, _ in ran if out]  # one worker of all prints
    assert json.loads(text)["losses"] == pytest.approx(plain_losses(transformer, 3), rel=1e-5)


def test_torchrun_profiles(mlp: Path, environment: dict[str, str], tmp_path: Path) -> None:
    profile, table = tmp_path / "step.json", tmp_path / "ops.json"
    options = ("--steps", 2, "--warmup", 1, "-o", profile, "--json")
    ((code, out, err),) = torchrun({**environment, "BAECHI_CACHE": str(tmp_path)}, 1, 2, "profile", mlp, *options)
    assert code == 0, err
    found = json.loads(out)  # one worker of all prints
    assert found == json.loads(profile.read_text())
    assert {span[1] for span in found["timeline"]["ops"]} == {"cpu:0", "cpu:1"}
    assert found["losses"][:1] == pytest.approx(plain_losses(mlp, 1), rel=1e-5)
    assert json.loads(table.read_text())["seconds"]["cpu"] == found["ops"]["cpu"]


def test_torchrun_profiles_plans_only(environment: dict[str, str]) -> None:
    ((code, out, err),) = torchrun(environment, 1, 2, "profile", "models:mlp", "--cluster", "2x2GiB")
    assert (code, out) == (1, "")
    assert "error[B108]: torchrun's workers run a plan" in err


def test_torchrun_with_a_wrong_number_of_workers(mlp: Path, environment: dict[str, str]) -> None:
    ((code, out, err),) = torchrun(environment, 1, 3, "run", mlp, "--json", "--steps", 1)
    assert (code, out) == (1, "")
    (line,) = [line for line in err.splitlines() if "error[B" in line]
    assert "error[B618]: the plan needs 2 workers (cpu:0, cpu:1), 3 were started" in line
