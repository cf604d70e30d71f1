"""Measure one core of this machine and the way between two processes at several sizes, and fit rates to that."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from baechi.cost.fit import Fit, fit_rate
from baechi.profile.machine import least_seconds
from baechi.profile.wire import wire_points

__all__ = ["Calibration", "calibrate"]

_SIDES = (32, 64, 128, 256, 384, 512, 768)
_ELEMENTS = (4, 2**12, 2**16, 2**20, 2**22, 2**24)
_SECONDS = 0.15  # for each size


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was fitted.

    Attributes:
        compute: of float32 matrix products, in FLOPs.
        memory: of an element-wise op, in bytes read and written.
        link: of a tensor from one process to another, in bytes; None where there is no way between processes.
    """

    compute: Fit
    memory: Fit
    link: Fit | None

    @property
    def rates(self) -> dict[str, float]:
        """By the names of `config.LOCAL`; the least time of an op is the element-wise one's, which does nothing else."""
        found = {
            "flops_per_second": self.compute.rate,
            "bytes_per_second": self.memory.rate,
            "launch_seconds": self.memory.least_seconds,
        }
        if self.link is not None:
            found |= {"link_latency_seconds": self.link.least_seconds, "link_bytes_per_second": self.link.rate}
        return found


def calibrate() -> Calibration:
    """Measure and fit, in some seconds; torch then has one thread in this process.

    Raises:
        BaechiError: B311 when what was measured tells no rate.
    """
    torch.set_num_threads(1)
    with torch.inference_mode():
        compute, memory = list(_products()), list(_streams())
    wire = wire_points()
    return Calibration(fit_rate(compute), fit_rate(memory), fit_rate(wire) if wire else None)


def _products() -> Iterator[tuple[float, float]]:
    for side in _SIDES:
        a, b, out = torch.rand(side, side), torch.rand(side, side), torch.empty(side, side)
        yield 2.0 * side**3, least_seconds(partial(torch.mm, a, b, out=out), _SECONDS)


def _streams() -> Iterator[tuple[float, float]]:
    for count in _ELEMENTS:
        data, out = torch.rand(count), torch.empty(count)
        yield 8.0 * count, least_seconds(partial(torch.mul, data, 2.0, out=out), _SECONDS)
