"""Modules that tracers stumble over: the captured step still gives the numbers of eager code."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from baechi.frontends.pytorch import capture


class _Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return gradient * (x > 0)


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.body, x, use_reentrant=False)


class OwnFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Any:
        return _Clamp.apply(self.fc(x))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.fc = nn.GRU(8, 4, batch_first=True, bidirectional=True), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.gru(x)[0])


class Normed(nn.Module):
    """A forward pass that writes buffers outside autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.a = parametrizations.spectral_norm(nn.Linear(8, 8))
        self.b = parametrizations.weight_norm(nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Any:
        return self.b(self.a(x))


class WritesInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relu, self.fc = nn.ReLU(inplace=True), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.relu(x))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        return self.attention(x, x, x)[0]


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.fc(x).float()


@pytest.mark.parametrize(
    "cls", [Checkpointed, OwnFunction, Recurrent, Normed, WritesInput, Attention, Mixed], ids=lambda cls: cls.__name__
)
def test_an_unusual_module_equals_eager(cls: type[nn.Module], run_joint: Any) -> None:
    torch.manual_seed(0)
    module, x = cls(), torch.randn(2, 3, 8)
    program = capture(module, (x,), loss=lambda y: y.square().mean(), optimizer="adam")
    reference = copy.deepcopy(module)
    torch.manual_seed(1)
    expected = reference(x.clone()).square().mean()
    expected.backward()
    torch.manual_seed(1)
    outputs, gradients, buffers = run_joint(program, module, (x,))
    torch.testing.assert_close(outputs[program.outputs[0]], expected.detach(), rtol=0, atol=0)
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=0, atol=0, check_stride=False)
    for name, buffer in reference.named_buffers():
        if name in buffers:
            torch.testing.assert_close(buffers[name], buffer, rtol=0, atol=0)
    for op in program.graph.ops:
        assert op.phase != "backward" or op.forward is not None or not op.inputs
