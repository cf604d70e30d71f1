"""Run a plan with the real model that its target names."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from baechi.backends.pytorch.executor import Executor, torch_devices
from baechi.ir.plan import Plan
from baechi.profile.beside import busy_neighbours
from baechi.profile.measured import Measured
from baechi.profile.ops import profile_ops
from baechi.profile.room import check_room
from baechi.profile.step import measure_step

if TYPE_CHECKING:
    from baechi.frontends.pytorch import TorchProgram

__all__ = ["check_memory", "measure_ops", "train"]


def train(
    program: "TorchProgram",
    plan: Plan,
    build: Callable[[], torch.nn.Module],
    inputs: Sequence[Any],
    *,
    steps: int,
    warmup: int = 1,
    seed: int = 0,
    memory: bool = True,
) -> Measured:
    """Build the model, place it as planned and train some steps on one batch.

    Args:
        program: the captured step.
        plan: for its graph.
        build: makes the module; its weights are drawn from `seed`.
        inputs: what a step takes: ``(args, kwargs)`` of the capture, and the target when it has one.
        steps: how many are timed.
        warmup: how many come before.
        seed: of weights and dropout.
        memory: whether more steps measure the memory of each device.

    Raises:
        BaechiError: B606 when this machine lacks a device of the plan, B610 when it lacks the
            memory, B6xx as `Executor`.
    """
    torch_devices(plan)
    check_memory(program, plan)
    torch.manual_seed(seed)
    module = build()
    with Executor(program, plan) as executor:
        executor.load(module)
        del module
        return measure_step(executor, pytree.tree_flatten(tuple(inputs))[0], steps=steps, warmup=warmup, memory=memory)


def measure_ops(
    program: "TorchProgram",
    build: Callable[[], torch.nn.Module],
    inputs: Sequence[Any],
    *,
    seed: int = 0,
    beside: int = 0,
) -> dict[str, float]:
    """Time of each kind of op on one core, in seconds by `Op.key`, in steps on real weights and inputs.

    Real ones, because arithmetic on the tiny numbers that made-up ones lead to is up to ten times slower.

    Args:
        program, build, inputs: as for `train`.
        seed: of the weights.
        beside: how many other processes compute meanwhile (`neighbours_of`), as other devices of
            a plan will: they share memory and caches.

    Raises:
        BaechiError: B6xx as `profile_ops`.
    """
    torch.manual_seed(seed)
    module = build()
    flat = pytree.tree_flatten(tuple(inputs))[0]
    parameters, buffers = dict(module.named_parameters()), dict(module.named_buffers())
    with busy_neighbours(beside):
        return dict(profile_ops(program, inputs=flat, parameters=parameters, buffers=buffers, repeats=4).by_key)


def check_memory(program: "TorchProgram", plan: Plan) -> None:
    """Refuse to start what this machine's memory cannot hold: the plan, or the module, until its weights are copied.

    Raises:
        BaechiError: B610.
    """
    check_room(plan, 2 * sum(program.graph.op[op].outputs[0].nbytes for op in program.parameters.values()))
