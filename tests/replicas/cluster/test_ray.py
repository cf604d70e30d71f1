"""Real replicas under Ray on this machine: what is promised when things go wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

import baechi
from baechi.errors import BaechiError
from baechi.replicas.cluster.body import Body
from baechi.replicas.cluster.driver import Driver
from baechi.replicas.cluster.hub import HubOptions
from baechi.replicas.cluster.run import RunOptions, Statuses
from baechi.replicas.peer import Message, Snapshot

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")

SCRIPT = """
import sys, time
from pathlib import Path

import torch

import baechi

torch.manual_seed(0)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), 0.02)
replica = baechi.replicas.join(model, optimizer)
generator = torch.Generator().manual_seed(replica.index)
truth = torch.arange(8.0)
for step in replica.steps(int(sys.argv[1])):
    x = torch.randn(16, 8, generator=generator)
    loss = (model(x).squeeze(1) - x @ truth).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    replica.step(loss)
    time.sleep(0.01)
    if len(sys.argv) > 2 and Path(sys.argv[2]).exists():
        break
print("done", replica.index, replica.done)
"""

GANG = """
import torch

import baechi


def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))


x, y = torch.zeros(16, 8), torch.zeros(16, 1)
loss = torch.nn.functional.mse_loss
sgd = {"optimizer": "sgd", "optimizer_options": {"lr": 0.05}}
plan = baechi.plan(build(), (x,), loss=loss, target=y, **sgd, cluster="2x1MiB", placer="round-robin")
step = plan.worker(build, capped=False)
replica = baechi.replicas.join(step)
generator = torch.Generator().manual_seed(replica.index)
for _ in replica.steps(60):
    x = torch.randn(16, 8, generator=generator)
    replica.step(step(x, target=x.sum(1, keepdim=True)))
print("has", *sorted(step.worker.parameters))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of a run find the same modules, and a token of their own."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p or "." for p in sys.path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)


def until(driver: Driver, holds: Callable[[Statuses], bool], seconds: float = 90.0) -> Statuses:
    """Poll the run until something holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        driver.poll()
        statuses = driver.statuses()
        if holds(statuses):
            return statuses
    raise AssertionError(f"it never came to be: {statuses}")


def steps(statuses: Statuses) -> dict[int, int]:
    return {i: s["steps"] for i, s in statuses.items()}


def ahead(start: dict[int, int], more: int, *who: int) -> Callable[[Statuses], bool]:
    return lambda now: all(now[i]["steps"] >= start[i] + more for i in who)


def ray_processes(mark: str) -> set[str]:
    """Names of Ray's servers that a command with this in its environment has started; other tests may have theirs."""
    return {
        p.info["name"]
        for p in psutil.process_iter(["name", "environ"])
        if p.info["name"] in ("raylet", "gcs_server") and (p.info["environ"] or {}).get("MARK") == mark
    }


def test_faults_stay_where_they_are(script: Path, tmp_path: Path) -> None:
    """One run: bad snapshots, a killed replica, one that hangs for a while, a late joiner."""
    stop = tmp_path / "stop"
    options = RunOptions(HubOptions(4, capacity=10.0), checkpoint=str(tmp_path / "kept"), checkpoint_every=20)
    body = Body(str(script), ("1000000", str(stop)), logs=str(tmp_path / "logs"), threads=1)
    with Driver(options, body) as driver:
        first = until(driver, lambda now: len(now) == 4 and all(s["steps"] > 30 for s in now.values()))
        _bad_snapshots_are_refused(driver)

        os.kill(first[1]["pid"], signal.SIGKILL)
        killed = steps(driver.statuses())
        until(driver, ahead(killed, 60, 0, 2, 3))  # the others go on
        back = until(driver, lambda now: now[1]["incarnation"] == 1 and now[1]["steps"] > 0)
        until(driver, ahead(steps(back), 20, 1))
        assert back[1]["steps"] >= 20, "it goes on from its checkpoint"

        os.kill(back[2]["pid"], signal.SIGSTOP)
        held = steps(driver.statuses())
        until(driver, lambda now: any(2 in now[i]["ignored"] for i in (0, 1, 3)))
        until(driver, ahead(held, 60, 0, 1, 3))
        os.kill(back[2]["pid"], signal.SIGCONT)
        until(driver, ahead(held, 40, 2))
        until(driver, lambda now: all(2 not in now[i]["ignored"] for i in (0, 1, 3)))

        late = driver.add()
        joined = until(driver, lambda now: late in now and now[late]["steps"] > 20)
        assert joined[late]["losses"][0][1] < 0.2 * first[0]["losses"][0][1], "it began with a trained model"
        stop.touch()
        outcome = driver.wait()
    assert outcome.restarts == {0: 0, 1: 1, 2: 0, 3: 0, 4: 0}
    assert all(not ended.code for ended in outcome.ended.values())
    for model in outcome.models.values():
        assert np.allclose(model[0], np.arange(8.0), atol=0.3)


def _bad_snapshots_are_refused(driver: Driver) -> None:
    before = driver.statuses()[0]["refused"]
    weight, bias = np.zeros((1, 8), np.float32), np.zeros(1, np.float32)

    def send(serial: int, *arrays: Any) -> None:
        driver.call(0, "hear", Message("push", 9, Snapshot(9, 0, 1, serial, arrays, {9: 1})))

    send(1, weight, bias)
    send(1, weight, bias)
    send(2, weight)
    send(3, weight.T, bias)
    send(4, np.full((1, 8), np.nan, np.float32), bias)
    after = driver.statuses()[0]["refused"]
    new = {why: after[why] - before.get(why, 0) for why in after if after[why] > before.get(why, 0)}
    assert new == {"replayed": 1, "shape": 2, "not finite": 1}


def test_the_command_trains_and_goes_on_from_checkpoints(script: Path, tmp_path: Path) -> None:
    first = _command(script, tmp_path, 40)
    assert first["schema"] == "baechi/replicas-run/1"
    assert [row["steps"] for row in first["replicas"]] == [40, 40]
    again = _command(script, tmp_path, 100, "--resume")
    for row in again["replicas"]:
        assert (row["steps"], row["error"]) == (100, None)
        assert row["losses"][0][0] == 41, "the steps before are not made again"
        assert row["loss"] < 0.5 * first["replicas"][0]["first_loss"]
        assert row["steps_per_second"] > 0
        assert set(row["refused"]) <= {"dropped"}


def _command(script: Path, tmp_path: Path, count: int, *more: str) -> Any:
    command = [sys.executable, "-m", "baechi", "replicas", "-n", "2", "--json", "--checkpoint", str(tmp_path / "kept")]
    command += ["--checkpoint-every", "10", "--threads", "1", *more, "--", str(script), str(count)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_a_gang_trains_one_placed_model(tmp_path: Path) -> None:
    """Two replicas, each of two worker processes with a part of the weights."""
    script = tmp_path / "gang.py"
    script.write_text(GANG, encoding="utf-8")
    logs = tmp_path / "logs"
    body = Body(str(script), logs=str(logs), threads=1)
    with Driver(RunOptions(HubOptions(2, shares=2, capacity=20.0)), body) as driver:
        outcome = driver.wait()
    assert all(not ended.code for ended in outcome.ended.values()), outcome.ended
    held = [(logs / f"replica-0.{rank}.log").read_text().split()[1:] for rank in range(2)]
    assert all(held), "both have weights"
    assert sorted(held[0] + held[1]) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    for status in outcome.statuses.values():
        assert (status["steps"], status["version"]) == (60, 60)
        assert status["losses"][-1][1] < 0.7 * status["losses"][0][1]
    assert outcome.statuses[0]["mixed"] > 0


def test_a_method_under_ray_is_what_its_definition_says(tmp_path: Path) -> None:
    """Synchronous SGD on two replicas is plain SGD on the mean of both gradients."""
    outcome = baechi.replicas.train(_linear, 2, logs=str(tmp_path), threads=1, method="sync-sgd")
    weight = torch.zeros(1, 4)
    for k in range(30):
        gradients = []
        for index in range(2):
            x, y = _batch(index, k)
            gradients.append(2 * (x @ weight.T - y).T @ x / len(x))
        weight = weight - 0.1 * (gradients[0] + gradients[1]) / 2
    for index, model in outcome.models.items():
        assert np.allclose(model[0], weight.numpy(), atol=1e-6)
        assert outcome.statuses[index]["sent_bytes"] == 30 * 4 * 4


def _batch(index: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(10 * k + index))
    return x, x.sum(1, keepdim=True) + index


def _linear() -> None:
    model = torch.nn.Linear(4, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    replica = baechi.replicas.join(model, optimizer)
    for k in replica.steps(30):
        x, y = _batch(replica.index, k)
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        replica.step(loss)


def test_who_lacks_the_token_gets_nothing(script: Path, tmp_path: Path) -> None:
    with Driver(RunOptions(HubOptions(1)), Body(str(script), ("5",), logs=str(tmp_path))) as driver:
        import ray

        address = ray.get_runtime_context().gcs_address
        command = [sys.executable, "-m", "baechi", "replicas", "-n", "1", "--address", address, "--", str(script), "1"]
        wrong = {**os.environ, "RAY_AUTH_TOKEN": "0" * 64}
        ran = subprocess.run(command, capture_output=True, text=True, env=wrong, timeout=120, check=False)
        assert ran.returncode == 2
        assert "error[B806]" in ran.stderr
        assert "token" in ran.stderr
        assert driver.wait().statuses[0]["steps"] == 5


def test_a_killed_driver_leaves_no_process(script: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    marked = {**os.environ, "MARK": str(tmp_path)}
    command = [sys.executable, "-m", "baechi", "replicas", "-n", "2", "--logs", str(logs), "--", str(script), "100000"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=marked) as run:
        for _ in _patiently(60):
            if list(logs.glob("*.log")):
                break
        below = psutil.Process(run.pid).children(recursive=True)
        assert ray_processes(str(tmp_path)) == {"raylet", "gcs_server"}
        run.kill()
    gone, left = psutil.wait_procs(below, 30)
    assert len(gone) > 4
    assert not left
    assert not ray_processes(str(tmp_path))


def _patiently(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.2)


def test_a_script_that_fails_is_one_error(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("raise ValueError('no data')", encoding="utf-8")
    with (
        Driver(RunOptions(HubOptions(1)), Body(str(script), logs=str(tmp_path / "logs"))) as driver,
        pytest.raises(BaechiError, match="ValueError: no data") as caught,
    ):
        driver.wait()
    assert caught.value.code == "B807"
    assert "replica-0.log" in caught.value.help
