"""The GPUs of this machine as a cluster."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch

from baechi.ir.cluster import Cluster, Device, Link
from baechi.presets import Preset, presets

__all__ = ["cuda_cluster"]

_USABLE = 0.95
"""The share of the free memory that a plan may count on: contexts and workspaces take some later."""

_CORES: Mapping[tuple[int, int], int] = {(6, 0): 64, (7, 0): 64, (7, 2): 64, (7, 5): 64, (8, 0): 64}
"""Float32 lanes of a multiprocessor by compute capability, where they are not 128 (CUDA C++ programming guide)."""

_CLOCK_HZ = 1.5e9
_EFFICIENCY = 0.6
_LAUNCH_SECONDS = 6e-6
_PCIE = Link(15e-6, 12e9)
_NOT_THE_MODEL = re.compile(r"NVIDIA|Tesla|SXM\d*|HBM\w*|\d+GB")


@dataclass(frozen=True, slots=True)
class _Gpu:
    device: Device
    link: Link


def cuda_cluster() -> Cluster | None:
    """The GPUs that this process may use, with what is free of their memory; None when there is none.

    Rates are those of the preset of that name; for other GPUs they follow from what the driver says
    of multiprocessors and clocks. All pairs get the slowest link of any.

    Example:
        >>> cluster = cuda_cluster()
        >>> cluster is None or cluster.devices[0].name
        True
    """
    if not torch.cuda.is_available():
        return None
    gpus = [_gpu(i) for i in range(torch.cuda.device_count())]
    links = [gpu.link for gpu in gpus]
    if not all(torch.cuda.can_device_access_peer(i, j) for i, j in combinations(range(len(gpus)), 2)):
        links.append(_PCIE)
    slowest = Link(max(k.latency_seconds for k in links), min(k.bytes_per_second for k in links))
    return Cluster(tuple(gpu.device for gpu in gpus), slowest)


def _gpu(i: int) -> _Gpu:
    free, total = torch.cuda.mem_get_info(i)
    properties = torch.cuda.get_device_properties(i)
    preset = _preset_of(properties.name, total)
    known: dict[str, Any] = _rates(properties) if preset is None else _preset_rates(preset)
    device = Device(f"cuda:{i}", int(free * _USABLE), backend="cuda", **known)
    return _Gpu(device, _PCIE if preset is None else preset.link)


def _preset_of(name: str, total: int) -> Preset | None:
    """The preset of a GPU: the same model, and memory of about that size, for one model may have several."""
    for preset in presets().values():
        if _model(preset.title) == _model(name) and 0.85 < total / preset.memory_bytes < 1.1:
            return preset
    return None


def _model(name: str) -> str:
    """What is left of a name without maker, socket and memory; ``PCIe`` stays, for those are slower."""
    return " ".join(_NOT_THE_MODEL.sub(" ", name.replace("-", " ")).split()).lower()


def _preset_rates(preset: Preset) -> dict[str, Any]:
    fields = ("flops_per_second", "bytes_per_second", "launch_seconds", "efficiency")
    return {"type": preset.name, **{name: getattr(preset, name) for name in fields}}


def _rates(properties: Any) -> dict[str, Any]:
    """Estimates, to be overridden by measured times.

    Tensor cores are left out: their rate follows from nothing that the driver says. Older versions of
    torch do not give clocks; then the GPU counts as one of 1.5 GHz that reads a byte for 30 operations,
    which is between a V100 (17) and an RTX 3090 (38).
    """
    clock = getattr(properties, "clock_rate", 0) * 1e3 or _CLOCK_HZ
    cores = properties.multi_processor_count * _CORES.get((properties.major, properties.minor), 128)
    flops = 2 * clock * cores
    bus_bits, memory_clock = (getattr(properties, key, 0) for key in ("memory_bus_width", "memory_clock_rate"))
    bandwidth = 2 * memory_clock * 1e3 * bus_bits / 8 or flops / 30
    return {
        "type": re.sub(r"[^a-z0-9]+", "-", _model(properties.name)).strip("-") or "cuda",
        "flops_per_second": {"float32": flops},
        "bytes_per_second": bandwidth,
        "launch_seconds": _LAUNCH_SECONDS,
        "efficiency": _EFFICIENCY,
    }
