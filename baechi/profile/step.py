"""Measure a placed step: its time, its timeline and the memory of each device."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from baechi.backends.pytorch.executor import Executor
from baechi.ir.timeline import OpSpan, Timeline, TransferSpan
from baechi.profile.measured import Measured, summarize
from baechi.profile.memory import memory_curves

__all__ = ["measure_step", "trace_step"]


def measure_step(
    executor: Executor, inputs: Sequence[Any], *, steps: int, warmup: int = 2, memory: bool = True
) -> Measured:
    """Train some steps and time each.

    Args:
        executor: loaded; its parameters move on.
        inputs: the flattened inputs of one step, used in each.
        steps: how many are timed, at least 1.
        warmup: how many come before.
        memory: whether one more step measures the memory of each device.

    Raises:
        BaechiError: B601, B606, B608 as of `Executor.step`.
    """
    losses: list[float] = []
    seconds: list[float] = []
    for i in range(warmup + steps):
        start = time.perf_counter()
        result = executor.step(*inputs)
        _wait(executor.devices)
        if i >= warmup:
            seconds.append(time.perf_counter() - start)
        if executor.program.has_loss:
            losses.append(float(result))
        del result
    peaks = {}
    if memory:
        peaks = {device: max(b for _, b in curve) for device, curve in memory_curves(executor, inputs).items()}
    return summarize(seconds, losses, peaks)


def trace_step(executor: Executor, inputs: Sequence[Any], *, memory: bool = False) -> Timeline:
    """Run one step and say when each op and each transfer ran.

    Args:
        memory: also the memory of each device over time, of another step.
    """
    probe = _Events(executor) if executor.is_cuda else _Clock()
    runner = executor.make_runner({"ENTER": probe.enter, "LEAVE": probe.leave})
    executor.run(runner, executor.values(inputs))  # the first run of new code is slower
    values = executor.values(inputs)
    probe.begin()
    executor.run(runner, values)
    ops, transfers = [], []
    tensors = executor.program.graph.tensor
    for i, start, end in probe.spans():
        action = executor.schedule.actions[i]
        if action.transfer is None:
            ops.append(OpSpan(action.op, action.agent.device, start, end))
        else:
            transfers.append(TransferSpan(*action.transfer, start, end, tensors[action.transfer[0]].nbytes))
    curves = memory_curves(executor, inputs) if memory else {}
    ops.sort(key=lambda span: (span.start, span.end))
    transfers.sort(key=lambda span: (span.start, span.end))
    return Timeline(tuple(ops), tuple(transfers), curves)


class _Clock:
    """Times of CPU threads: an op has run when its call returns."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self._raw: list[tuple[int, float, float]] = []
        self._start = time.perf_counter()

    def enter(self, _: int) -> float:
        return time.perf_counter()

    def leave(self, i: int, entered: float, _: tuple[Any, ...]) -> None:
        self._raw.append((i, entered, time.perf_counter()))

    def spans(self) -> list[tuple[int, float, float]]:
        return [(i, a - self._start, b - self._start) for i, a, b in self._raw]


class _Events:
    """Times of CUDA streams, by events; each device's clock starts after all are idle."""

    def __init__(self, executor: Executor) -> None:
        self._actions = executor.schedule.actions
        self._devices = executor.devices
        self.begin()

    def begin(self) -> None:
        self._raw: list[tuple[int, Any, Any]] = []
        self._base = {}
        _wait(self._devices)
        for name, device in self._devices.items():
            self._base[name] = self._now(device)

    def _now(self, device: torch.device) -> Any:
        if device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
        return event

    def enter(self, i: int) -> Any:
        return self._now(self._devices[self._actions[i].agent.device])

    def leave(self, i: int, entered: Any, _: tuple[Any, ...]) -> None:
        self._raw.append((i, entered, self._now(self._devices[self._actions[i].agent.device])))

    def spans(self) -> list[tuple[int, float, float]]:
        _wait(self._devices)
        return [(i, self._since(i, a), self._since(i, b)) for i, a, b in self._raw]

    def _since(self, i: int, moment: Any) -> float:
        base = self._base[self._actions[i].agent.device]
        return moment - base if isinstance(base, float) else float(base.elapsed_time(moment)) / 1e3


def _wait(devices: Mapping[str, torch.device]) -> None:
    """Until the GPUs have done all that was issued: a step returns before."""
    for device in devices.values():
        if device.type == "cuda":
            torch.cuda.synchronize(device)
