"""Clusters of peers as processes under Ray: the numbers of plain torch, a killed peer, a killed command."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from torch import nn

from baechi.replicas.cluster.body import Body
from baechi.replicas.cluster.crew_driver import CrewDriver
from baechi.replicas.cluster.crew_settings import crew_options

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")

SCRIPT = """
import sys

import torch
from torch import nn

import baechi


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))


def batches(count):
    generator = torch.Generator().manual_seed(1)
    while count:
        yield torch.randn(4, 8, generator=generator), torch.randn(4, 1, generator=generator)
        count -= 1


if __name__ == "__main__":
    count = int(sys.argv[1])
    x, y = next(batches(1))
    post = baechi.replicas.join_cluster(
        build, (x,), target=y, loss=nn.functional.mse_loss, optimizer="sgd", optimizer_options={"lr": 0.1}
    )
    post.train(post.part(list(batches(count * post.clusters))), count)
    if post.is_last:
        torch.save(post.weights(), f"{sys.argv[2]}/cluster-{post.cluster}.pt")
"""

PEERS = """
[[peer]]
name = "board"
count = 4
memory = "16kB"
flops_per_second = {float32 = 1e6}
bandwidth = "10MB/s"
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The script and the file of peers; processes of a run find the same modules, and a token of their own."""
    (tmp_path / "train.py").write_text(SCRIPT, encoding="utf-8")
    (tmp_path / "peers.toml").write_text(PEERS, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p or "." for p in sys.path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    return str(tmp_path / "train.py"), str(tmp_path / "peers.toml")


def _command(files: tuple[str, str], *more: str) -> list[str]:
    script, peers = files
    head = [sys.executable, "-m", "baechi", "replicas", "--peers", peers, "--clusters", "2", "--threads", "1"]
    return [*head, *more[:-2], "--", script, *more[-2:]]


def test_the_command_trains_to_the_numbers_of_synchronous_sgd(files: tuple[str, str], tmp_path: Path) -> None:
    count = 20
    command = _command(files, "--under-way", "1", "--average-every", "1", "--json", str(count), str(tmp_path))
    ran = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["schema"] == "baechi/replicas-crews/1"
    assert [(len(c["peers"]), c["microbatches"], c["whole"]) for c in found["clusters"]] == [(2, count, True)] * 2
    assert {row["staleness"] for row in found["peers"]} == {0}
    names = runpy.run_path(files[0])
    model, data = names["build"](), list(names["batches"](2 * count))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for i in range(count):
        optimizer.zero_grad()
        losses = [nn.functional.mse_loss(model(x), y) for x, y in data[2 * i : 2 * i + 2]]
        torch.stack(losses).mean().backward()
        optimizer.step()
        for c, loss in enumerate(losses):
            assert found["clusters"][c]["losses"][i] == [i, pytest.approx(loss.item(), rel=1e-4)]
    for c in range(2):
        weights = torch.load(tmp_path / f"cluster-{c}.pt")
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(weights[name], parameter.detach(), rtol=1e-4, atol=1e-6)


def test_a_killed_peer_takes_its_cluster_and_no_other(files: tuple[str, str], tmp_path: Path) -> None:
    count = 600
    session = crew_options(flags={"peers": files[1], "clusters": 2, "average_every": 5}).session
    body = Body(files[0], (str(count), str(tmp_path)), logs=str(tmp_path / "logs"), threads=1)
    with CrewDriver(session, body) as driver:
        for _ in _patiently(90):
            driver.poll()
            statuses = driver.statuses()
            if len(statuses) == 4 and all(s["averages"] >= 2 for s in statuses.values()):
                break
        victim = next(s for s in statuses.values() if s["cluster"] == 1)
        os.kill(victim["pid"], signal.SIGKILL)
        outcome = driver.wait()
    assert outcome.layout is not None
    assert outcome.gone == (1,)
    for peer, status in outcome.statuses.items():
        assert outcome.ended[peer].code == ("B808" if status["cluster"] == 1 else "")
        if status["cluster"] == 0:
            assert (status["microbatches"], status["averages"]) == (count, count // 5)
    assert set(outcome.models) == {0}
    assert (tmp_path / "cluster-0.pt").exists()


def test_a_killed_command_leaves_no_process(files: tuple[str, str], tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    command = _command(files, "--logs", str(logs), "1000000", str(tmp_path))
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as run:
        for _ in _patiently(60):
            if len(list(logs.glob("*.log"))) == 4:
                break
        below = psutil.Process(run.pid).children(recursive=True)
        run.kill()
    gone, left = psutil.wait_procs(below, 30)
    assert len(gone) > 4
    assert not left


def _patiently(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.2)
