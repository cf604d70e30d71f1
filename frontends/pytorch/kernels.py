"""Which kernels a trace may choose: a traced op has to run outside autograd, or on any device."""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._decomp import decompositions
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

__all__ = ["portable", "unfused_rnns"]


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Only generic operators, none that exists for the CPU alone."""
    with sdpa_kernel(SDPBackend.MATH), _without_onednn(), _dropout_between_layers():
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
def _dropout_between_layers() -> Iterator[None]:
    """Recurrent layers are traced with their dropout, which torch's decomposition of them leaves out.

    In torch 2.13 it compares the number of layers with the layer's index the wrong way round.
    """
    helper: Any = getattr(decompositions, "_rnn_helper", None)
    if helper is None:
        yield
        return

    def layers(
        x: Tensor,
        hidden: Any,
        params: Any,
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
        layer_fn: Any,
    ) -> tuple[Tensor, list[Any]]:
        sides = 2 if bidirectional else 1
        last: list[Any] = []
        x = x.transpose(0, 1) if batch_first else x
        for i in range(num_layers):
            mine = slice(sides * i, sides * (i + 1))
            x, end = helper(x, hidden[mine], params[mine], has_biases, 1, 0.0, train, bidirectional, False, layer_fn)
            last += end
            if dropout and train and i < num_layers - 1:
                x = torch.dropout(x, dropout, train=True)
        return x.transpose(0, 1) if batch_first else x, last

    with mock.patch.object(decompositions, "_rnn_helper", layers):
        yield


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
        with _dropout_between_layers():
            yield
    finally:
        for stack in reversed(running):
            stack.close()
        for hook in hooks:
            hook.remove()
