"""Which kernels a trace may choose: a traced op has to run outside autograd, or on any device."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

__all__ = ["portable", "unfused_rnns"]


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Only generic operators, none that exists for the CPU alone."""
    with sdpa_kernel(SDPBackend.MATH), _without_onednn():
        yield


@contextlib.contextmanager
def _without_onednn() -> Iterator[None]:
    """As `torch.backends.mkldnn.flags`, which warns of other settings that it touches too."""
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)


@contextlib.contextmanager
def unfused_rnns() -> Iterator[None]:
    """Recurrent layers are traced step by step.

    oneDNN's fused layer keeps what its backward needs only while autograd records, so a graph that
    holds both passes cannot run it.
    """
    running: list[contextlib.ExitStack] = []

    def enter(child: nn.Module, args: Any) -> None:
        if isinstance(child, nn.RNNBase):
            running.append(contextlib.ExitStack())
            running[-1].enter_context(_without_onednn())

    def leave(child: nn.Module, args: Any, output: Any) -> None:
        if isinstance(child, nn.RNNBase):
            running.pop().close()

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for stack in reversed(running):
            stack.close()
        for hook in hooks:
            hook.remove()
