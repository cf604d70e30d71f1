"""The GPUs of a machine become a cluster; there is none here, so torch says what such machines have."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from baechi.presets import presets
from baechi.profile.devices import cuda_cluster

GIB = 2**30


def pretend(monkeypatch: pytest.MonkeyPatch, *gpus: dict[str, Any], peers: bool = True) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(gpus))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda i, j: peers)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: (gpus[i]["free"], gpus[i]["total_memory"]))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(**gpus[i]))


def gpu(name: str, gib: float, **more: Any) -> dict[str, Any]:
    plain = {"major": 7, "minor": 5, "multi_processor_count": 46}
    return {"name": name, "total_memory": int(gib * GIB), "free": int(gib * GIB) // 2, **plain, **more}


def test_there_is_no_cluster_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    assert cuda_cluster() is None


@pytest.mark.parametrize(
    ("name", "gib", "preset"),
    [
        ("NVIDIA GeForce RTX 2080", 7.8, "rtx2080"),
        ("NVIDIA GeForce RTX 2080 Ti", 10.8, "rtx2080ti"),
        ("NVIDIA GeForce RTX 2080 SUPER", 7.8, None),
        ("GeForce GTX 1080 Ti", 10.9, "gtx1080ti"),
        ("NVIDIA GeForce RTX 3060", 11.8, "rtx3060"),
        ("NVIDIA GeForce RTX 3060", 7.8, None),
        ("NVIDIA GeForce RTX 3080", 11.8, None),
        ("NVIDIA GeForce RTX 4090", 23.6, "rtx4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 15.7, None),
        ("Tesla T4", 14.6, "t4"),
        ("Tesla V100-SXM2-16GB", 15.8, "v100-16gb"),
        ("Tesla V100-PCIE-16GB", 15.8, None),
        ("NVIDIA A10", 22.5, "a10"),
        ("NVIDIA L4", 22.2, "l4"),
        ("NVIDIA A100-SXM4-40GB", 39.4, "a100-40gb"),
        ("NVIDIA A100-SXM4-80GB", 79.3, "a100-80gb"),
        ("NVIDIA A100 80GB PCIe", 79.3, None),
        ("NVIDIA H100 80GB HBM3", 79.2, "h100"),
        ("NVIDIA H100 NVL", 93.1, None),
        ("NVIDIA H200", 139.8, "h200"),
    ],
)
def test_names_that_torch_gives_find_their_preset(
    monkeypatch: pytest.MonkeyPatch, name: str, gib: float, preset: str | None
) -> None:
    pretend(monkeypatch, gpu(name, gib))
    cluster = cuda_cluster()
    assert cluster is not None
    (device,) = cluster.devices
    assert (device.name, device.backend) == ("cuda:0", "cuda")
    assert device.cap == pytest.approx(0.95 * gib * GIB / 2)
    if preset is None:
        assert device.type not in presets()
    else:
        assert device.type == preset
        assert device.flops_per_second == presets()[preset].flops_per_second
        assert device.bytes_per_second == presets()[preset].bytes_per_second


def test_a_gpu_that_nobody_knows_has_the_rates_of_its_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checked against data sheets: an RTX A6000 has 38.7 Tflop/s and 768 GB/s, a P100 9.3 and 732."""
    a6000 = {"major": 8, "minor": 6, "multi_processor_count": 84, "clock_rate": 1_800_000}
    a6000 |= {"memory_clock_rate": 8_001_000, "memory_bus_width": 384}
    p100 = {"major": 6, "minor": 0, "multi_processor_count": 56, "clock_rate": 1_328_500}
    p100 |= {"memory_clock_rate": 715_000, "memory_bus_width": 4096}
    pretend(monkeypatch, gpu("NVIDIA RTX A6000", 47.5, **a6000), gpu("Tesla P100-PCIE-16GB", 15.9, **p100))
    cluster = cuda_cluster()
    assert cluster is not None
    assert [d.type for d in cluster.devices] == ["rtx-a6000", "p100-pcie"]
    assert [d.flops_per_second["float32"] for d in cluster.devices] == pytest.approx([38.7e12, 9.52e12], rel=0.01)
    assert [d.bytes_per_second for d in cluster.devices] == pytest.approx([768e9, 732e9], rel=0.01)


def test_without_clocks_rates_are_plausible(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpu("Tesla V100-PCIE-16GB", 15.8, major=7, minor=0, multi_processor_count=80))
    cluster = cuda_cluster()
    assert cluster is not None
    assert 10e12 < cluster.devices[0].flops_per_second["float32"] < 20e12
    assert 3e11 < cluster.devices[0].bytes_per_second < 1.2e12


@pytest.mark.parametrize(("peers", "slowest"), [(True, "nvlink"), (False, "pcie")])
def test_gpus_that_cannot_reach_each_other_share_the_slow_bus(
    monkeypatch: pytest.MonkeyPatch, peers: bool, slowest: str
) -> None:
    pretend(monkeypatch, *(gpu("NVIDIA H100 80GB HBM3", 79.2) for _ in range(2)), peers=peers)
    cluster = cuda_cluster()
    assert cluster is not None
    assert [d.name for d in cluster.devices] == ["cuda:0", "cuda:1"]
    assert (cluster.link.bytes_per_second == presets()["h100"].link.bytes_per_second) == (slowest == "nvlink")
    assert cluster.link.bytes_per_second >= 12e9
