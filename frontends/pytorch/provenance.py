"""Where each traced op comes from: the module that ran it and the line of the user's code."""

import contextlib
import sys
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

import torch
from torch import fx
from torch.fx import traceback as fx_traceback
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from baechi.frontends.lines import Lines
from baechi.frontends.pytorch.modules import Step

__all__ = ["KEY", "LINES", "calling_line", "origin", "provenance"]

KEY = "baechi"
"""Under ``meta["custom"]`` of an fx node: (module path, source line)."""

LINES = Lines(torch)
"""The user's lines in a capture."""


def calling_line(frame: FrameType | None, stop: CodeType | None = None) -> str:
    """``file:line`` of the nearest frame outwards that is the user's, or nothing; `stop` is no more looked at."""
    while frame is not None and frame.f_code is not stop:
        if name := LINES.name(frame.f_code.co_filename):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def origin(node: fx.Node) -> tuple[str, str]:
    """Module path and source line that `provenance` noted on a node."""
    found: tuple[str, str] = node.meta.get("custom", {}).get(KEY, ("", ""))
    return found


class _Notes(TorchFunctionMode):
    """Notes the running module and the user's line before each torch call."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = [""]
        self.stop: CodeType = Step.forward.__code__

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") != "__get__":
            self.note(sys._getframe(1))
        return func(*args, **(kwargs or {}))

    def note(self, frame: FrameType | None) -> None:
        line = calling_line(frame, self.stop)
        custom = fx_traceback.current_meta.get("custom", {})
        fx_traceback.current_meta["custom"] = {**custom, KEY: (self.stack[-1], line)}


@contextlib.contextmanager
def provenance(step: Step) -> Iterator[None]:
    """Ops traced inside carry the path of their module and the user's line.

    The module hooks are global, so the module itself is not touched.
    """
    names = {child: name for name, child in step.hidden[0].named_modules()}
    notes = _Notes()

    def enter(child: Any, args: Any) -> None:
        notes.stack.append(names.get(child, notes.stack[-1]))

    def leave(child: Any, args: Any, output: Any) -> None:
        notes.stack.pop()

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    step.around = notes
    try:
        with fx_traceback.preserve_node_meta():
            yield
    finally:
        for hook in hooks:
            hook.remove()
        fx_traceback.current_meta.pop("custom", None)
