"""The CUDA streams of the devices of plans, shared by all that runs in the process."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

__all__ = ["Streams", "assign_streams", "feeder", "indexed", "new_event"]

_STREAMS: dict[tuple[torch.device, int], "Streams"] = {}
_FEEDERS: dict[torch.device, torch.cuda.Stream] = {}


@dataclass(frozen=True, slots=True)
class Streams:
    """Of one device of a plan: where it computes, where it receives, where it sends."""

    compute: torch.cuda.Stream
    lane: torch.cuda.Stream
    sender: torch.cuda.Stream


def assign_streams(devices: Mapping[str, torch.device]) -> dict[str, Streams]:
    """The streams of each device that is a GPU; devices on one GPU have streams of their own.

    Every plan gets the same ones. Memory that one part of a step has freed then serves the next
    part, for the allocator keeps what it has apart by stream, as cuBLAS does with its workspaces; and
    torch has 32 streams of each priority, which it deals out again when they are used up.

    Args:
        devices: the torch device by name, with its index.
    """
    found: dict[str, Streams] = {}
    count: dict[torch.device, int] = {}
    for name, gpu in devices.items():
        if gpu.type == "cuda":
            number = count[gpu] = count.get(gpu, -1) + 1
            if (gpu, number) not in _STREAMS:
                _STREAMS[gpu, number] = Streams(_new_stream(gpu), _new_stream(gpu, -1), _new_stream(gpu, -1))
            found[name] = _STREAMS[gpu, number]
    return found


def feeder(gpu: torch.device) -> torch.cuda.Stream:
    """The stream on which inputs come from the host."""
    if gpu not in _FEEDERS:
        _FEEDERS[gpu] = _new_stream(gpu)
    return _FEEDERS[gpu]


def new_event() -> torch.cuda.Event:
    """An event to wait for; it takes no times."""
    return torch.cuda.Event()  # type: ignore[no-untyped-call]


def indexed(device: torch.device) -> torch.device:
    """The device with its index: ``cuda`` alone is the current one."""
    if str(device) == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _new_stream(gpu: torch.device, priority: int = 0) -> torch.cuda.Stream:
    return torch.cuda.Stream(gpu, priority=priority)  # type: ignore[no-untyped-call]
