"""Run a captured step with real tensors, node by node, and models to capture."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from baechi.frontends.pytorch import TorchProgram

Ran = tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]


def run_program(program: TorchProgram, module: nn.Module, inputs: Any, tangents: Any = None) -> Ran:
    """Outputs by tensor name, gradients by parameter name and new buffers by buffer name."""
    real: dict[str, Tensor] = {op: module.get_parameter(n).detach().clone() for n, op in program.parameters.items()}
    real |= {op: module.get_buffer(n).detach().clone() for n, op in program.buffers.items()}
    for op, value in zip(program.inputs, pytree.tree_leaves(inputs), strict=True):
        if op is not None:
            real[op] = value
    for i, op in enumerate(program.tangents):
        real[op] = torch.ones(program.graph.tensor[op].shape) if tangents is None else tangents[i]
    interpreter = fx.Interpreter(program.module, garbage_collect_values=False)
    placeholders = [n.name for n in program.module.graph.nodes if n.op == "placeholder"]
    with torch.no_grad():
        interpreter.run(*[real[n] for n in placeholders])

    def at(name: str) -> Tensor:
        value: Tensor = interpreter.env[program.values[name]]
        return value

    buffers = {b: at(program.graph.op[a].inputs[0]) for b, a in program.buffer_updates.items()}
    outputs = {n: at(n) for n in program.outputs if n is not None}
    return outputs, {p: at(t) for p, t in program.gradients.items()}, buffers


@pytest.fixture
def run_joint() -> Callable[..., Ran]:
    return run_program


class SmallCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.left, self.right = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 3, padding=1)
        self.drop, self.fc = nn.Dropout(0.5), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu_(self.bn(self.conv1(x)))
        x = torch.cat([self.left(x), self.right(x)], 1).mean((2, 3))
        out: Tensor = self.fc(self.drop(x))
        return out


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 20)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.head(self.layers(self.embed(tokens)))
        return out.flatten(0, 1)


class Seq2Seq(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 8)
        self.encoder, self.decoder = nn.LSTM(8, 8, 2, batch_first=True), nn.LSTM(8, 8, 2, batch_first=True)
        self.head = nn.Linear(8, 12)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        _, state = self.encoder(self.embed(source))
        decoded, _ = self.decoder(self.embed(target), state)
        out: Tensor = self.head(decoded).flatten(0, 1)
        return out


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Embedding(11, 6), nn.LayerNorm(6), nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.embed(tokens))).flatten(0, 1)
        return out


def make_case(name: str) -> tuple[nn.Module, tuple[Tensor, ...], Tensor]:
    """A real module with seeded weights, its inputs and its target."""
    torch.manual_seed(0)
    match name:
        case "cnn":
            return SmallCNN(), (torch.randn(4, 3, 10, 10),), torch.randint(5, (4,))
        case "encoder":
            return Encoder(), (torch.randint(20, (2, 5)),), torch.randint(20, (10,))
        case "seq2seq":
            return Seq2Seq(), (torch.randint(12, (2, 4)), torch.randint(12, (2, 3))), torch.randint(12, (6,))
    return Tied(), (torch.randint(11, (2, 3)),), torch.randint(11, (6,))


@pytest.fixture
def case() -> Callable[[str], tuple[nn.Module, tuple[Tensor, ...], Tensor]]:
    return make_case
