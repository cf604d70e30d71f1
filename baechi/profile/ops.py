"""Measure the time of every op of a captured step on this CPU, inside the step itself."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from baechi.backends.plans import plan_in_program_order
from baechi.backends.pytorch.executor import Executor
from baechi.backends.pytorch.rewrite import SOURCES
from baechi.frontends.pytorch.program import TorchProgram
from baechi.profile.measured import middle_half
from baechi.profile.memory import temporary_bytes

__all__ = ["OpTimes", "example_inputs", "example_state", "profile_ops"]

_WARMUP = 2  # the heap grows in the first, and still in the second


@dataclass(frozen=True, slots=True)
class OpTimes:
    """What ops take on one core.

    Attributes:
        by_name: of each op, the mean over the half of the steps that are of middle length: their sum is a step's.
        by_key: the mean over the ops of one key, so that their sum is kept.
        step_seconds: the median of whole steps, the measuring included.
        steps: how many steps were measured.
        temp_bytes: by op name, the most that its kernel held at once beside its results.
    """

    by_name: Mapping[str, float]
    by_key: Mapping[str, float]
    step_seconds: float
    steps: int
    temp_bytes: Mapping[str, int]


def profile_ops(
    program: TorchProgram,
    *,
    inputs: Sequence[Any] | None = None,
    parameters: Mapping[str, torch.Tensor] | None = None,
    buffers: Mapping[str, torch.Tensor] | None = None,
    repeats: int = 5,
    budget_seconds: float = 60.0,
) -> OpTimes:
    """Run the step on one core and time each op where it stands, caches as they are there.

    One more step says what memory each op needs while it runs.

    Args:
        program: the step; its memory must be there.
        inputs: the flattened inputs; made up by default, class indices and token ids then all 0.
        parameters: by name; small random numbers by default.
        buffers: by name.
        repeats: steps to measure, after two that warm up.
        budget_seconds: no further step is begun after this time; one is always measured.

    Raises:
        BaechiError: B601 when an op fails, B607 and B608 when what is given does not fit.
    """
    made = example_state(program)
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter  # others' work does not count
    given = example_inputs(program) if inputs is None else inputs
    begin = time.perf_counter()
    spans: dict[int, list[float]] = {}
    steps: list[float] = []

    def enter(_: int) -> float:
        return clock()

    def leave(i: int, entered: float, _: tuple[Any, ...]) -> None:
        spans.setdefault(i, []).append(clock() - entered)

    plan = plan_in_program_order(program.graph, dict.fromkeys(program.graph.op, "cpu:0"))
    with Executor(program, plan) as executor:
        executor.load({**made, **(parameters or {})}, {**made, **(buffers or {})})
        runner = executor.make_runner({"ENTER": enter, "LEAVE": leave})
        for i in range(_WARMUP + repeats):
            if i == _WARMUP:
                spans.clear()
                steps.clear()
            start = time.perf_counter()
            executor.run(runner, executor.values(given))
            steps.append(time.perf_counter() - start)
            if i >= _WARMUP and time.perf_counter() - begin > budget_seconds:
                break
        actions = executor.schedule.actions
        peaks = temporary_bytes(executor, given)
    temporaries = {a.op: _beside_results(program, a.op, peak) for a, peak in zip(actions, peaks, strict=True)}
    middle = middle_half(steps)
    by_name = {actions[i].op: statistics.fmean(times[k] for k in middle) for i, times in sorted(spans.items())}
    return OpTimes(by_name, _by_key(program, by_name), statistics.median(steps), len(steps), temporaries)


def _beside_results(program: TorchProgram, op: str, peak: int) -> int:
    made = sum(t.nbytes for t in program.graph.op[op].outputs if t.alias_of is None)
    return max(0, peak - made)


def _by_key(program: TorchProgram, by_name: Mapping[str, float]) -> dict[str, float]:
    keys: dict[str, list[float]] = {}
    for op in program.graph.ops:
        if op.key and op.name in by_name:
            keys.setdefault(op.key, []).append(by_name[op.name])
    return {key: statistics.fmean(times) for key, times in keys.items()}


def example_state(program: TorchProgram, seed: int = 0) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, of a size that keeps activations near 1 through the layers."""
    random = torch.Generator().manual_seed(seed)
    state = {}
    for name, op in program.parameters.items():
        value = torch.empty(_like(program, op).shape, dtype=_like(program, op).dtype)
        if value.dim() < 2 or not value.is_floating_point():
            state[name] = value.fill_(1)
        else:
            bound = (3 / max(1, value[0].numel())) ** 0.5
            state[name] = value.uniform_(-bound, bound, generator=random)
    for name, op in program.buffers.items():
        like = _like(program, op)
        state[name] = torch.full(tuple(like.shape), int(like.is_floating_point()), dtype=like.dtype)
    return state


def example_inputs(program: TorchProgram, seed: int = 0) -> list[Any]:
    """Inputs of the captured shapes: normal random numbers, and zeros for integers, which are in any range."""
    random = torch.Generator().manual_seed(seed)
    inputs: list[Any] = []
    for op in program.inputs:
        if op is None:
            inputs.append(None)
            continue
        like = _like(program, op)
        value = torch.zeros(tuple(like.shape), dtype=like.dtype)
        inputs.append(value.normal_(generator=random) if value.is_floating_point() else value)
    return inputs


def _like(program: TorchProgram, op: str) -> torch.Tensor:
    if program.graph.op[op].kind not in SOURCES:
        raise KeyError(op)
    value: torch.Tensor = program.values[program.graph.op[op].outputs[0].name].meta["val"]
    return value
