"""Calibration: pace of work that is started over and over, rates of devices and of each pair, the cluster that has them."""

import time
from itertools import permutations

import pytest
import torch

from baechi.cost.fit import fit_rate
from baechi.cost.fits import ClusterFits, DeviceFits
from baechi.ir.cluster import Cluster, Device, Link
from baechi.profile import calibrate
from baechi.profile.calibrate import calibrate_apart
from baechi.report.cluster_text import cluster_toml
from baechi.report.machine_text import fits_text

CPU = torch.device("cpu")


class _Machine:
    """A clock, on which starting some work takes a time of its own, and a device that works it off behind."""

    def __init__(self, start_seconds: float, work_seconds: float, settle_seconds: float) -> None:
        self.now = self.idle = 0.0
        self.start_seconds, self.work_seconds, self.settle_seconds = start_seconds, work_seconds, settle_seconds

    def perf_counter(self) -> float:
        return self.now

    def work(self) -> None:
        self.now += self.start_seconds
        self.idle = max(self.now, self.idle) + self.work_seconds

    def synchronize(self, place: torch.device) -> None:
        self.now = max(self.now, self.idle) + self.settle_seconds


@pytest.mark.parametrize(("start", "work"), [(5e-6, 1e-6), (5e-6, 2e-3), (5e-6, 5e-6)])
def test_pace_is_the_slower_of_starting_and_working(start: float, work: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """What synchronising takes is spread over all that were started: a thousandth of a round of 5 ms is left."""
    machine = _Machine(start, work, 10e-6)
    monkeypatch.setattr(time, "perf_counter", machine.perf_counter)
    monkeypatch.setattr(torch.cuda, "synchronize", machine.synchronize)
    found = calibrate._paced_seconds(machine.work, (torch.device("cuda", 0),))
    assert max(start, work) <= found <= max(start, work) * 1.005


def test_each_device_and_each_pair_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "_SECONDS", 0.01)
    monkeypatch.setattr(calibrate, "_SIDES", {"cpu": (64, 128, 256, 512)})
    monkeypatch.setattr(calibrate, "_ELEMENTS", {"cpu": (4, 2**16, 2**20, 2**22)})
    monkeypatch.setattr(calibrate, "_SENT", (2**12, 2**18, 2**22, 2**24))
    fits = calibrate_apart({"a": CPU, "b": CPU, "c": CPU})
    assert list(fits.devices) == ["a", "b", "c"]
    assert list(fits.links) == list(permutations("abc", 2))
    assert all(fit.rate > 0 for found in fits.devices.values() for fit in found.named().values())


def _fits() -> ClusterFits:
    def line(least: float, rate: float) -> tuple[tuple[float, float], ...]:
        return tuple((n, least + n / rate) for n in (1e3, 1e6, 1e9))

    devices = {
        f"cuda:{i}": DeviceFits(
            {"float32": fit_rate(line(6e-6, (i + 1) * 1e13)), "float16": fit_rate(line(6e-6, (i + 1) * 1.2e14))},
            fit_rate(line(5e-6, (i + 1) * 1e11)),
            fit_rate(line(9e-6, 2e10)),
        )
        for i in range(2)
    }
    links = {("cuda:0", "cuda:1"): fit_rate(line(8e-6, 4e10)), ("cuda:1", "cuda:0"): fit_rate(line(9e-6, 3e10))}
    return ClusterFits(devices, None, links)


def test_a_cluster_takes_on_what_was_fitted_and_keeps_its_caps() -> None:
    before = Cluster(tuple(Device(f"cuda:{i}", 2**30, type="old", backend="cuda", efficiency=0.6) for i in range(3)))
    after = _fits().applied(before)
    one = after.device["cuda:1"]
    assert one.flops_per_second == pytest.approx({"float32": 2e13, "float16": 2.4e14})
    assert (one.bytes_per_second, one.launch_seconds) == pytest.approx((2e11, 5e-6))
    assert (one.host_bytes_per_second, one.efficiency, one.cap) == (pytest.approx(2e10), 1.0, 2**30)
    assert after.device["cuda:2"] == before.device["cuda:2"]
    for ends, latency, rate in ((("cuda:0", "cuda:1"), 8e-6, 4e10), (("cuda:2", "cuda:1"), 9e-6, 3e10)):
        link = after.link_between(*ends)
        assert (link.latency_seconds, link.bytes_per_second) == pytest.approx((latency, rate)), ends


def test_a_cluster_file_says_how_sure_each_rate_is(tmp_path) -> None:
    from baechi.config import parse_cluster

    cluster = _fits().applied(
        Cluster(tuple(Device(f"cuda:{i}", 2**30, backend="cuda") for i in range(2)), Link(1e-6, 1e9))
    )
    text = cluster_toml(cluster, _fits())
    path = tmp_path / "here.toml"
    path.write_text(text)
    assert parse_cluster(str(path)).to_dict() == cluster.to_dict()
    assert [line.partition(" = ")[0] for line in text.splitlines() if "# +-" in line] == [
        *("flops_per_second", "bytes_per_second", "host_bytes_per_second", "launch_seconds") * 2,
        *("latency_seconds", "bytes_per_second") * 2,
    ]
    assert "in float32; +-" in text


def test_rates_are_read_a_row_each() -> None:
    rows = [line.split() for line in fits_text(_fits()).splitlines()]
    assert [row[:5] for row in rows[1:5]] == [
        ["cuda:0", "float32", "10.0", "TFLOP/s", "0.0%"],
        ["float16", "120", "TFLOP/s", "0.0%", "6.00"],
        ["memory", "100", "GB/s", "0.0%", "5.00"],
        ["host", "20.0", "GB/s", "0.0%", "9.00"],
    ]
    assert [row[:6] for row in rows[-2:]] == [
        ["cuda:0", "to", "cuda:1", "link", "40.0", "GB/s"],
        ["cuda:1", "to", "cuda:0", "link", "30.0", "GB/s"],
    ]
    assert max(map(len, fits_text(_fits()).splitlines())) <= 80
