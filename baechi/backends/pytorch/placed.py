"""A user's own module that runs as planned: its class, its parameters and its loop stay what they are."""

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Self
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils import _pytree as pytree

from baechi.backends.pytorch.autograd import PlacedForward, make_forward
from baechi.backends.pytorch.executor import Executor
from baechi.frontends.pytorch.program import TorchProgram
from baechi.ir.plan import Plan

__all__ = ["PlacedStep", "Planner", "Runtime", "attach", "is_disabled", "runtime_of", "untouched", "wrap"]

Planner = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], tuple[TorchProgram, Plan]]

_runtimes: "WeakKeyDictionary[nn.Module, Runtime]" = WeakKeyDictionary()
_untouched: ContextVar[bool] = ContextVar("untouched", default=False)


class Runtime:
    """What is behind a placed module, as its attribute ``baechi``.

    Attributes:
        placed: by the inputs' shapes and the module's mode, the forward that runs as planned.
    """

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self.placed: dict[object, PlacedForward] = {}

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The plans made so far, one for each kind of input."""
        return tuple(forward.plan for forward in self.placed.values())

    def forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the module's forward as planned; plan first when its inputs are of a new kind."""
        key = _kind(module, args, kwargs)
        if key not in self.placed:
            with untouched(), torch.enable_grad():
                program, plan = self._planner(module, args, kwargs)
            self.placed[key] = make_forward(program, plan, module)
        return self.placed[key](*args, **kwargs)

    def close(self) -> None:
        """Forget all plans and end their threads."""
        for forward in self.placed.values():
            forward.close()
        self.placed.clear()


def runtime_of(module: nn.Module) -> Runtime | None:
    """The runtime of a placed module; None for any other."""
    return _runtimes.get(module)


@contextmanager
def untouched() -> Iterator[None]:
    """Within, placed modules run as they were written."""
    token = _untouched.set(True)
    try:
        yield
    finally:
        _untouched.reset(token)


def is_disabled() -> bool:
    """Whether ``BAECHI_DISABLE`` says to leave everything alone."""
    return os.environ.get("BAECHI_DISABLE", "") not in ("", "0")


def attach(module: nn.Module, planner: Planner) -> nn.Module:
    """Run this module, and no other of its class, as planned from its next call on."""
    _runtimes[module] = Runtime(planner)
    wrap(type(module), None)
    return module


def wrap(cls: type[nn.Module], planner: Planner | None) -> None:
    """Let a class look for a runtime before each forward; with a planner, each instance gets one."""
    if planner is None and hasattr(cls.forward, "baechi_wraps"):
        return
    original = cls.forward

    @functools.wraps(original)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        runtime = _runtimes.get(self)
        if runtime is None and planner is not None and type(self).forward is forward:
            runtime = _runtimes[self] = Runtime(planner)
        if runtime is None or _untouched.get() or is_disabled() or type(self).forward is not forward:
            return original(self, *args, **kwargs)
        return runtime.forward(self, args, kwargs)

    forward.baechi_wraps = original  # type: ignore[attr-defined]
    cls.forward = forward
    setattr(cls, "baechi", property(runtime_of))  # noqa: B010  (mypy knows no such attribute)


class PlacedStep:
    """A whole training step of a model: forward, loss, backward and update, as planned.

    The step has weights and optimiser state of its own, on the devices of the plan; `sync` copies
    the weights back into the model.
    """

    def __init__(self, executor: Executor, model: nn.Module) -> None:
        self.executor, self.model = executor, model

    def __call__(self, *args: Any, target: Any = None, **kwargs: Any) -> torch.Tensor:
        """Train one step on these inputs and return the loss.

        Raises:
            BaechiError: B608 when an input is not like the captured one.
        """
        given = (args, kwargs) if target is None else (args, kwargs, target)
        loss: torch.Tensor = self.executor.step(*pytree.tree_leaves(given))
        return loss

    def sync(self) -> None:
        """Copy weights and buffers into the model."""
        self.model.load_state_dict(self.executor.state_dict(), strict=False)  # it holds transient buffers too

    def close(self) -> None:
        """Copy the weights into the model and end the step's threads."""
        self.sync()
        self.executor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _kind(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
    """What a plan depends on: structure, shapes and types of the inputs, mode, autocast."""
    leaves, tree = pytree.tree_flatten((args, dict(kwargs)))
    return (
        tuple(_leaf(leaf) for leaf in leaves),
        repr(tree),
        tuple(m.training for m in module.modules()),
        tuple(p.requires_grad for p in module.parameters()),
        torch.is_autocast_enabled("cpu"),
    )


def _leaf(leaf: Any) -> object:
    if isinstance(leaf, torch.Tensor):
        return (tuple(leaf.shape), leaf.dtype, leaf.requires_grad)
    return repr(leaf)
