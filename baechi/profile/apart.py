"""Train a plan's share in a worker process, and put together what all workers measured."""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.utils import _pytree as pytree

from baechi.backends.limits import allocations
from baechi.backends.pytorch.workers.part import Part
from baechi.backends.pytorch.workers.training import begin
from baechi.backends.pytorch.workers.worker import Stamps, Worker
from baechi.backends.pytorch.workers.world import World, explained
from baechi.profile.measured import Measured, summarize
from baechi.profile.traced import Curve, Notes, StepNotes

__all__ = ["Order", "Report", "measured_of", "train_share"]


@dataclass(frozen=True, slots=True)
class Order:
    """What the workers of a run are asked to do; plain data.

    Attributes:
        target: from which each worker loads the model, as in `Plan.target`.
        steps: how many are timed.
        warmup: how many come before.
        seed: of weights and dropout.
        memory: whether one more step measures memory.
        capped: whether a worker is held to its device's memory.
        checkpoint: where to keep checkpoints; empty for nowhere.
        every: how many steps lie between two of them; one is made at the end too.
        resume: whether to go on from the newest one.
        traced: whether each timed step is followed by one in which everything is noted.
    """

    target: Mapping[str, Any]
    steps: int
    warmup: int = 1
    seed: int = 0
    memory: bool = True
    capped: bool = True
    checkpoint: str = ""
    every: int = 1
    resume: bool = False
    traced: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What one worker did; plain data.

    Attributes:
        device: in the plan.
        seconds: of each timed step, from when all workers began it.
        losses: of each step, those of the warm-up first; empty where the loss is elsewhere.
        parameters: numbers that are here.
        names: of the parameters and buffers that are here.
        peak_bytes: of parameters, buffers, inputs, optimiser state and all that a step allocates;
            0 when it was not measured.
        first_step: steps that came before this run, in those that it resumes.
        notes: what was noted of the traced steps; None when none was.
    """

    device: str
    seconds: tuple[float, ...]
    losses: tuple[float, ...]
    parameters: int
    names: tuple[str, ...]
    peak_bytes: int
    first_step: int = 0
    notes: Notes | None = None


def train_share(
    part: Part, build: Callable[[], torch.nn.Module], inputs: Sequence[Any], order: Order, world: World
) -> Report:
    """Be one worker of a run.

    Args:
        part: what to do.
        build: makes the module.
        inputs: what a step takes: ``(args, kwargs)`` of the capture, and the target when it has one.
        order: for how long, and what else.
        world: the other workers.

    Raises:
        BaechiError: B6xx as `Worker`.
    """
    torch.manual_seed(order.seed)
    training = begin(part, build, world, capped=order.capped)
    worker = training.worker
    if order.resume:
        training.resume(order.checkpoint)
    first = training.steps
    flat = pytree.tree_flatten(tuple(inputs))[0]
    losses: list[float] = []
    seconds: list[float] = []
    stamps: list[Stamps] = []
    for i in range(order.warmup + order.steps):
        with explained(part):
            dist.barrier()
        start = time.perf_counter()
        loss = training.step(flat)
        if i >= order.warmup:
            seconds.append(time.perf_counter() - start)
        if loss is not None:
            losses.append(float(loss))
        if order.traced and i >= order.warmup:
            with explained(part):
                dist.barrier()
            stamps.append(training.trace(flat))
        if order.checkpoint and (training.steps % order.every == 0 or i == order.warmup + order.steps - 1):
            training.save(order.checkpoint)
    peak, curve = _peak(worker, flat) if order.memory else (0, ())
    return Report(
        part.device,
        tuple(seconds),
        tuple(losses),
        sum(p.numel() for p in worker.parameters.values()),
        (*part.parameters, *part.buffers),
        peak,
        first,
        _notes(part, stamps, curve) if order.traced else None,
    )


def _notes(part: Part, stamps: Sequence[Stamps], curve: Curve) -> Notes:
    name = {rank: device for device, rank in part.ranks.items()}
    tensor = {i: (wire.tensor, name[wire.peer]) for i, wire in part.wires.items()}
    return Notes(
        platform.node(),
        tuple(op for op in part.ops if op not in part.sources),
        tuple(
            StepNotes(
                s.begin,
                s.end,
                s.ops,
                {tensor[i]: at for i, at in s.sent.items()},
                {tensor[i]: at for i, at in s.awaited.items()},
                {tensor[i]: at for i, at in s.came.items()},
            )
            for s in stamps
        ),
        curve,
    )


def _peak(worker: Worker, inputs: Sequence[Any]) -> tuple[int, Curve]:
    """The most memory of one more step, and the memory at each change where it can be told."""
    place = worker.part.place
    if place.type != "cpu":
        torch.cuda.reset_peak_memory_stats(place)
        worker.step(*inputs)
        return int(torch.cuda.max_memory_allocated(place)), ()
    with allocations() as found:
        worker.step(*inputs)
    held = worker.persistent_bytes()
    return held + found.peak_bytes, ((0.0, held), *((seconds, held + nbytes) for seconds, nbytes in found.curve))


def measured_of(reports: Sequence[Report]) -> Measured:
    """The step as a whole: it ends when its last worker does."""
    seconds = [max(each) for each in zip(*(report.seconds for report in reports), strict=True)]
    losses = next((report.losses for report in reports if report.losses), ())
    peaks = {report.device: report.peak_bytes for report in reports if report.peak_bytes}
    return summarize(seconds, losses, peaks)
