"""Measure how many bytes live on each device during a step.

Virtual devices share one allocator, so it cannot tell them apart. One step is run with every
storage that an op or a copy makes followed from its birth to its death, on the threads that run it
always. What kernels hold only while they run is the allocator's own account of a second step, taken
op by op in one thread. On CUDA devices the allocator's peak is the answer.
"""

import os
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.autograd.profiler import profile, record_function

from baechi.backends.pytorch.executor import Executor

__all__ = ["memory_curves", "temporary_bytes"]

_MARK = "baechi action "


def memory_curves(executor: Executor, inputs: Sequence[Any]) -> dict[str, tuple[tuple[float, int], ...]]:
    """Run a few steps and return the memory of each device over one of them.

    Returns:
        By device, (seconds, bytes) at each change, the first at 0.0 with what persists. On a
        CUDA device two points: what persists, and the peak.
    """
    if executor.is_cuda:
        return _cuda_peaks(executor, inputs)
    peaks = temporary_bytes(executor, inputs)  # also makes the optimiser state, if this is the first step
    tracker = _Tracker(executor, peaks)
    runner = executor.make_runner({"ENTER": tracker.enter, "LEAVE": tracker.leave})
    values = executor.values(inputs)
    tracker.begin(values)
    results = executor.run(runner, values)
    curves = tracker.curves(executor.persistent_bytes())
    del results
    return curves


def temporary_bytes(executor: Executor, inputs: Sequence[Any]) -> list[int]:
    """The most bytes that each action of the schedule has allocated at once while it ran, results included.

    The allocations are those that torch's profiler reports for the calling thread.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it prints two lines for each profile otherwise
    runner = executor.make_serial({"ENTER": _enter, "LEAVE": _leave})
    values = executor.values(inputs)
    with profile(use_kineto=False, profile_memory=True) as profiler:
        results = runner.run(values)
    del results
    peaks = [0] * len(executor.schedule.actions)
    for mark in _marks(profiler.kineto_results.experimental_event_tree()):
        live = 0
        for nbytes in _allocations(mark):
            live += nbytes
            i = int(mark.name.removeprefix(_MARK))
            peaks[i] = max(peaks[i], live)
    return peaks


def _enter(i: int) -> Any:
    mark = record_function(f"{_MARK}{i}")
    mark.__enter__()  # type: ignore[no-untyped-call]
    return mark


def _leave(_i: int, mark: Any, _outputs: tuple[Any, ...]) -> None:
    mark.__exit__(None, None, None)


def _marks(events: Sequence[Any]) -> Iterator[Any]:
    for event in events:
        if event.name.startswith(_MARK):
            yield event
        else:
            yield from _marks(event.children)


def _allocations(event: Any) -> list[int]:
    found: list[tuple[int, int, int]] = []
    stack = [event]
    while stack:
        for child in stack.pop().children:
            if child.name == "[memory]":
                found.append((child.start_time_ns, len(found), child.extra_fields.alloc_size))
            else:
                stack.append(child)
    return [nbytes for _, _, nbytes in sorted(found)]


class _Tracker:
    """Follows the storages of one step."""

    def __init__(self, executor: Executor, peaks: Sequence[int]) -> None:
        self._device = [a.agent.device if a.transfer is None else a.transfer[2] for a in executor.schedule.actions]
        kinds = executor.program.graph.op
        self._leaves = [bool(a.op) and kinds[a.op].kind == "offload" for a in executor.schedule.actions]
        self._peaks = peaks
        self._changes: list[tuple[float, str, int]] = []
        self._known: dict[int, Any] = {}
        self._start = 0.0

    def begin(self, values: dict[str, dict[str, Any]]) -> None:
        """What is there before the step is counted apart."""
        for tensors in values.values():
            for tensor in tensors.values():
                storage = tensor.untyped_storage()
                self._known[id(storage)] = storage
        self._start = time.perf_counter()

    def enter(self, i: int) -> None:
        self._change(self._device[i], self._peaks[i])

    def leave(self, i: int, _: None, outputs: tuple[Any, ...]) -> None:
        made = 0 if self._leaves[i] else sum(self._follow(t, self._device[i]) for t in _tensors(outputs))
        self._change(self._device[i], made - self._peaks[i])

    def _follow(self, tensor: torch.Tensor, device: str) -> int:
        """Bytes of the tensor's storage when it is new; its end is noted."""
        storage = tensor.untyped_storage()
        key, nbytes = id(storage), storage.nbytes()
        if key in self._known:
            return 0

        def end(_: Any) -> None:
            self._known.pop(key, None)
            self._change(device, -nbytes)

        self._known[key] = weakref.ref(storage, end)
        return nbytes

    def _change(self, device: str, nbytes: int) -> None:
        self._changes.append((time.perf_counter() - self._start, device, nbytes))

    def curves(self, persistent: dict[str, int]) -> dict[str, tuple[tuple[float, int], ...]]:
        """Memory over time; what the step leaves behind is still counted at the end."""
        curves = {device: [(0.0, nbytes)] for device, nbytes in persistent.items()}
        for seconds, device, nbytes in sorted(self._changes, key=lambda change: change[0]):
            if nbytes:
                curves[device].append((seconds, curves[device][-1][1] + nbytes))
        return {device: tuple(curve) for device, curve in curves.items()}


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)


def _cuda_peaks(executor: Executor, inputs: Sequence[Any]) -> dict[str, tuple[tuple[float, int], ...]]:
    devices = {name: device for name, device in executor.devices.items() if device.type == "cuda"}
    for device in devices.values():
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    before = executor.persistent_bytes()
    executor.step(*inputs)
    seconds = time.perf_counter() - start
    peaks = {name: torch.cuda.max_memory_allocated(device) for name, device in devices.items()}
    return {name: ((0.0, before[name]), (seconds, peak)) for name, peak in peaks.items()}
