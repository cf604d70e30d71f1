"""Measure the devices of this machine and the ways between them at several sizes, and fit rates to that."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import permutations

import torch

from baechi.cost.fit import fit_rate
from baechi.cost.fits import ClusterFits, DeviceFits
from baechi.ir.cluster import Cluster
from baechi.profile.wire import wire_points

__all__ = ["calibrate", "calibrate_apart"]

Work = Callable[[], object]

_SIDES = {"cpu": (32, 64, 128, 256, 384, 512, 768), "cuda": (256, 512, 1024, 2048, 4096, 8192)}
_ELEMENTS = {"cpu": (4, 2**12, 2**16, 2**20, 2**22, 2**24), "cuda": (4, 2**16, 2**20, 2**22, 2**24, 2**26)}
_SENT = (2**12, 2**16, 2**20, 2**22, 2**24, 2**26)
_SECONDS = 0.15  # for each size
_ROUND_SECONDS = 5e-3
_SHARE = 0.25  # of a device's free memory


def calibrate(cluster: Cluster) -> ClusterFits:
    """Measure and fit, in some seconds; torch then has one thread in this process.

    Args:
        cluster: virtual devices of this processor, of which one core is measured and the way between two processes; or
            GPUs of this machine, of which each is measured, and each pair.

    Raises:
        BaechiError: B311 when what was measured tells no rate.
    """
    torch.set_num_threads(1)
    gpus = [d.name for d in cluster.devices if d.backend == "cuda"]
    if gpus:
        return calibrate_apart({name: torch.device(name) for name in gpus})
    fits, wire = _device_fits(torch.device("cpu")), wire_points()
    return ClusterFits({d.name: fits for d in cluster.devices}, fit_rate(wire) if wire else None)


def calibrate_apart(places: dict[str, torch.device]) -> ClusterFits:
    """Each device by itself, and each pair of them both ways.

    Ops of a GPU are started one after the other without waiting, as in a step: what is measured is how long they
    follow each other, not how long one takes to come back.

    Args:
        places: by name.
    """
    devices = {name: _device_fits(place) for name, place in places.items()}
    links = {
        (source, destination): fit_rate(list(_copies(places[source], places[destination])))
        for source, destination in permutations(places, 2)
    }
    return ClusterFits(devices, None, links)


def _device_fits(place: torch.device) -> DeviceFits:
    kinds = {str(kind).removeprefix("torch."): kind for kind in _kinds(place)}
    with torch.inference_mode():
        compute = {name: fit_rate(list(_products(place, kind))) for name, kind in kinds.items()}
        memory = fit_rate(list(_streams(place)))
    host = None if place.type == "cpu" else fit_rate(list(_copies(torch.device("cpu"), place)))
    return DeviceFits(compute, memory, host)


def _kinds(place: torch.device) -> tuple[torch.dtype, ...]:
    """What the device computes in its own circuits."""
    if place.type != "cuda":
        return (torch.float32,)
    with torch.cuda.device(place):
        own = torch.cuda.is_bf16_supported(including_emulation=False)
    return (torch.float32, torch.float16, *((torch.bfloat16,) if own else ()))


def _products(place: torch.device, kind: torch.dtype) -> Iterator[tuple[float, float]]:
    room = _free_bytes(place) * _SHARE
    for side in _SIDES[place.type]:
        if 12 * side * side < room:
            a, b = (torch.rand(side, side, device=place).to(kind) for _ in range(2))
            yield 2.0 * side**3, _paced_seconds(partial(torch.mm, a, b, out=torch.empty_like(a)), (place,))


def _streams(place: torch.device) -> Iterator[tuple[float, float]]:
    room = _free_bytes(place) * _SHARE
    for count in _ELEMENTS[place.type]:
        if 8 * count < room:
            data = torch.rand(count, device=place)
            yield 8.0 * count, _paced_seconds(partial(torch.mul, data, 2.0, out=torch.empty_like(data)), (place,))


def _copies(source: torch.device, destination: torch.device) -> Iterator[tuple[float, float]]:
    pinned = source.type == "cpu" and destination.type == "cuda"
    room = _SHARE * min(_free_bytes(source), _free_bytes(destination))
    for nbytes in _SENT:
        if nbytes < room:
            data = torch.zeros(nbytes, dtype=torch.uint8, device=source)
            data = data.pin_memory() if pinned else data
            out = torch.empty(nbytes, dtype=torch.uint8, device=destination)
            yield nbytes, _paced_seconds(partial(out.copy_, data, non_blocking=True), (source, destination))


def _paced_seconds(work: Work, places: Sequence[torch.device]) -> float:
    """The least time from one start of `work` to the next, when it is started over and over."""
    _round(work, 1, places)
    count = 1
    while (best := _round(work, count, places)) * count < _ROUND_SECONDS:
        count *= 2
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        best = min(best, _round(work, count, places))
    return best


def _round(work: Work, count: int, places: Sequence[torch.device]) -> float:
    start = time.perf_counter()
    for _ in range(count):
        work()
    for place in places:
        if place.type == "cuda":
            torch.cuda.synchronize(place)
    return max(time.perf_counter() - start, sys.float_info.min) / count


def _free_bytes(place: torch.device) -> int:
    if place.type == "cuda":
        return int(torch.cuda.mem_get_info(place)[0])
    import psutil

    return int(psutil.virtual_memory().available)
