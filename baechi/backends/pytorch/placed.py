"""A user's own module that runs as planned: its class, its parameters and its loop stay what they are."""

import functools
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Self
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils import _pytree as pytree

from baechi.backends.pytorch.autograd import PlacedForward, make_forward
from baechi.backends.pytorch.executor import Executor
from baechi.backends.pytorch.kinds import Kind, is_uninitialized, kind_of
from baechi.backends.pytorch.pool import Threads
from baechi.backends.reporting import report_of
from baechi.backends.switch import is_disabled
from baechi.frontends.pytorch.program import TorchProgram
from baechi.ir.plan import Plan

__all__ = [
    "PlacedStep",
    "Planner",
    "Runtime",
    "attach",
    "runtime_of",
    "untouched",
    "without_hooks",
    "wrap",
]

Planner = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], tuple[TorchProgram, Plan]]

_log = logging.getLogger("baechi")
_planning = threading.RLock()  # tracing changes what all threads see
_runtimes: "WeakKeyDictionary[nn.Module, Runtime]" = WeakKeyDictionary()
_untouched: ContextVar[bool] = ContextVar("untouched", default=False)


class Runtime:
    """What is behind a placed module, as its attribute ``baechi``.

    A call of a new kind is planned and said so once, on the logger ``baechi``: the first as
    information, a later one as a warning, for a loop whose inputs never repeat plans all the time.

    Attributes:
        placed: by the kind of call, the forward that runs as planned.
    """

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._threads = Threads()
        self.placed: dict[Kind, PlacedForward] = {}

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The plans made so far, one for each kind of call."""
        return tuple(forward.plan for forward in self.placed.values())

    def report(self, path: str) -> None:
        """Write a page about the plans made so far, as ``baechi report`` does for files; errors as `report_of`."""
        report_of(self._planner, [(forward.program.graph, forward.plan) for forward in self.placed.values()], path)

    def forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the module's forward as planned; plan first when the call is of a new kind."""
        with self._threads.lock:
            kind = kind_of(module, args, kwargs)
            if kind not in self.placed:
                self.placed[kind] = self._plan(kind, module, args, kwargs)
            return self.placed[kind](*args, **kwargs)

    def _plan(self, kind: Kind, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PlacedForward:
        with _planning, untouched(), torch.inference_mode(False), torch.enable_grad():
            program, plan = self._planner(module, args, kwargs)
        forward = make_forward(program, plan, module, threads=self._threads)
        name = type(module).__name__
        if self.placed:
            why = kind.news(self.placed)
            _log.warning("baechi: %s is planned anew for %s: plan %d", name, why, len(self.placed) + 1)
        else:
            _log.info("baechi: %s is planned", name)
        return forward

    def close(self) -> None:
        """Forget all plans and end their threads."""
        self.placed.clear()
        self._threads.close()


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


@contextmanager
def without_hooks(module: nn.Module) -> Iterator[None]:
    """Within, the module's own hooks rest: they run around its forward, placed or not, and are no part of it."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    held = {kind: vars(module)[kind] for kind in kinds}
    vars(module).update({kind: OrderedDict() for kind in kinds})
    try:
        yield
    finally:
        vars(module).update(held)


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
        if torch.compiler.is_dynamo_compiling() or torch.compiler.is_exporting():
            return original(self, *args, **kwargs)
        runtime = _runtimes.get(self)
        if runtime is None and planner is not None and type(self).forward is forward:
            runtime = _runtimes[self] = Runtime(planner)
        if runtime is None or _untouched.get() or is_disabled() or type(self).forward is not forward:
            return original(self, *args, **kwargs)
        if not runtime.placed and is_uninitialized(self):
            return original(self, *args, **kwargs)  # this call gives a lazy module its shapes
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
