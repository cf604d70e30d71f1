"""The link between two processes: measured by two that really send, kept, and replaced where they cannot start."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from baechi.ir.cluster import Link
from baechi.profile import wire
from baechi.profile.machine import Machine, measure_cpu

MACHINE = Machine(
    flops_per_second=1e10,
    bytes_per_second=1e10,
    launch_seconds=1e-6,
    copy_bytes_per_second=5e9,
    handoff_seconds=1e-5,
    wire_bytes_per_second=2e9,
    wire_seconds=4e-5,
    cores=2,
)

RANK = """
import sys
import torch.distributed as dist
from baechi.profile.wire import raw_bandwidth, transfer_seconds

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)
small, large = transfer_seconds(1 - rank, {4: 9, 2**24: 9}).values()
print(repr(raw_bandwidth(1 - rank, 2**20, 7)), repr(small), repr(large))
dist.destroy_process_group()
"""


def test_workers_send_and_threads_copy() -> None:
    assert MACHINE.link() == Link(4e-5, 2e9)
    assert MACHINE.link(processes=False) == Link(2e-5, 5e9)


def test_both_ranks_learn_what_the_sender_measured(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    meet = (tmp_path / "meet").as_uri()
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), meet], stdout=subprocess.PIPE, text=True, env=environment
        )
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=120)[0] for process in ranks]
    assert said[0] == said[1]
    rate, small, large = map(float, said[0].split())
    assert rate > 0
    assert 0 < small < large
    assert large > 2**24 / 1e11  # no core copies faster


def test_two_processes_are_measured() -> None:
    found = wire.measure_wire()
    assert found is not None
    latency, rate = found
    assert latency > 0
    assert 1e6 < rate < 1e12


@pytest.mark.parametrize("program", ["raise SystemExit(1)", "print('no figures')"])
def test_where_processes_cannot_send_there_is_no_figure(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_rank: int, _rendezvous: Path) -> "subprocess.Popen[str]":
        return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)

    monkeypatch.setattr(wire, "_start", broken)
    assert wire.measure_wire() is None


def test_without_figures_the_link_is_that_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAECHI_CACHE", str(tmp_path))
    monkeypatch.setattr(wire, "measure_wire", lambda: None)
    machine = measure_cpu()
    assert machine.link() == machine.link(processes=False)


def test_a_measurement_of_an_earlier_version_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAECHI_CACHE", str(tmp_path))
    monkeypatch.setattr("baechi.profile.machine._measure", lambda: MACHINE)
    assert measure_cpu() == MACHINE
    saved = json.loads((tmp_path / "cpu.json").read_text())
    saved["identity"][0] -= 1
    saved["machine"]["wire_seconds"] = 1.0
    (tmp_path / "cpu.json").write_text(json.dumps(saved))
    assert measure_cpu() == MACHINE
