"""Small networks from torch's own modules, one for each thing that a tracer or a placement could stumble over."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

__all__ = ["MODELS", "model"]

ROWS, LENGTH, WIDTH, WORDS = 4, 6, 16, 20


class Apply(nn.Module):
    """Modules and a function of them and the inputs."""

    def __init__(self, function: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


class Experts(nn.Module):
    """A mixture of experts; `sparse` runs each expert on its own tokens only, whose number depends on the data."""

    def __init__(self, *, sparse: bool) -> None:
        super().__init__()
        self.gate, self.sparse = nn.Linear(WIDTH, 4), sparse
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.gate(x).softmax(-1).topk(2)
        weight = torch.zeros(*x.shape[:-1], 4).scatter(-1, chosen, weights)
        if not self.sparse:
            return torch.stack([weight[..., i : i + 1] * e(x) for i, e in enumerate(self.experts)]).sum(0)
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            rows = torch.nonzero(weight[..., i], as_tuple=True)
            out = out.index_put(rows, weight[..., i : i + 1][rows] * expert(x[rows]), accumulate=True)
        return out


class Exp(torch.autograd.Function):
    """An exponential with a backward pass of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * ctx.saved_tensors[0]


class Averaged(nn.Module):
    """Buffers that the forward pass writes: one in place, one by assignment, one under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("again", self.mean)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        self.mean.mul_(0.9).add_(y.detach().mean((0, 1)), alpha=0.1)
        self.steps = self.steps + 1
        return y - self.again


class UNet(nn.Module):
    """Down, up and across."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.low = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.up, self.out = nn.ConvTranspose2d(16, 8, 2, stride=2), nn.ConvTranspose2d(16, 3, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        high = F.silu(self.down(x))
        return self.out(torch.cat([high, self.up(F.silu(self.low(high)))], 1))


def _frozen() -> nn.Module:
    body = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(LENGTH), nn.Dropout(0.2)).requires_grad_(False)
    return nn.Sequential(body, nn.Linear(WIDTH, WIDTH))


def _tied() -> nn.Module:
    net = Apply(lambda m, i: m.head(torch.tanh(m.mix(m.embed(i)))), embed=nn.Embedding(WORDS, WIDTH), mix=_linear(),
                head=nn.Linear(WIDTH, WORDS, bias=False))  # fmt: skip
    net.get_submodule("head").weight = net.get_submodule("embed").weight
    return net


def _linear() -> nn.Linear:
    return nn.Linear(WIDTH, WIDTH)


def _mixed(m: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return m.b(F.gelu(m.a(x))).float()  # type: ignore[no-any-return]


def _cells(m: Any, x: Tensor) -> Tensor:
    h = c = torch.zeros(ROWS, WIDTH)
    for i in range(LENGTH):
        h, c = m.cell(x[:, i], (h, c))
    return h


def _packed(m: Any, x: Tensor) -> Tensor:
    packed = pack_padded_sequence(x, (x[:, :, 0] > -2).sum(1).cpu(), batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(m.rnn(packed)[0], batch_first=True)[0]


def _teacher(m: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        aim = m.teacher(x)
    return m.student(x) - aim


def _penalty(m: Any, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(m.a(x).tanh().sum(), x, create_graph=True)
    return slope.square().sum(-1) - 1


def _variational(m: Any, x: Tensor) -> Tensor:
    mean, log = m.encode(x), m.spread(x)
    return m.decode(mean + torch.randn_like(mean) * (0.5 * log).exp())


def _vector() -> tuple[Any, ...]:
    return (torch.randn(ROWS, LENGTH, WIDTH),)


def _words() -> tuple[Any, ...]:
    return (torch.randint(WORDS, (ROWS, LENGTH)),)


def _image() -> tuple[Any, ...]:
    return (torch.randn(2, 3, 16, 16),)


def _pair() -> tuple[Any, ...]:
    return (torch.randn(ROWS, LENGTH, WIDTH), torch.randn(ROWS, LENGTH - 1, WIDTH))


Built = Callable[[], nn.Module]
MODELS: Mapping[str, tuple[Built, Callable[[], tuple[Any, ...]]]] = {
    "autocast bfloat16": (lambda: Apply(_mixed, a=_linear(), b=_linear()), _vector),
    "autograd.Function": (lambda: Apply(lambda m, x: Exp.apply(m.a(x)), a=_linear()), _vector),
    "batch norm, dropout": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout2d(0.2),
                              nn.Conv2d(8, 8, 3), nn.InstanceNorm2d(8, affine=True, track_running_stats=True)),
        _image),
    "bilinear": (lambda: Apply(lambda m, x: m.a(x, x.flip(1)), a=nn.Bilinear(WIDTH, WIDTH, 4)), _vector),
    "buffers written and tied": (Averaged, _vector),
    "checkpoint with dropout": (
        lambda: Apply(lambda m, x: checkpoint(m.body, m.a(x), use_reentrant=False), a=_linear(),
                      body=nn.Sequential(_linear(), nn.Dropout(0.3), nn.GELU(), _linear(), nn.Dropout(0.3))),
        _vector),
    "checkpoint, reentrant": (
        lambda: Apply(lambda m, x: checkpoint(m.b, m.a(x), use_reentrant=True), a=_linear(), b=_linear()), _vector),
    "conv1d, dilated": (
        lambda: nn.Sequential(nn.Conv1d(LENGTH, 8, 3, dilation=2, padding=2), nn.GLU(1), nn.Conv1d(4, 4, 3, groups=4)),
        _vector),
    "conv3d": (
        lambda: nn.Sequential(nn.Conv3d(1, 4, 3), nn.GroupNorm(2, 4), nn.AvgPool3d(2), nn.Conv3d(4, 2, 1)),
        lambda: (torch.randn(2, 1, 6, 8, 8),)),
    "embedding bag": (lambda: nn.Sequential(nn.EmbeddingBag(WORDS, WIDTH), nn.Tanh(), _linear()), _words),
    "embedding, sparse": (lambda: nn.Sequential(nn.Embedding(WORDS, WIDTH, sparse=True), _linear()), _words),
    "fft": (lambda: Apply(lambda m, x: torch.fft.irfft(torch.fft.rfft(m.a(x)) * 2, n=WIDTH), a=_linear()), _vector),
    "frozen backbone": (_frozen, _vector),
    "gradient penalty": (lambda: Apply(_penalty, a=_linear()), _vector),
    "gru, bidirectional": (
        lambda: Apply(lambda m, x: m.fc(m.rnn(x)[0]), rnn=nn.GRU(WIDTH, 8, bidirectional=True, batch_first=True),
                      fc=_linear()),
        _vector),
    "lstm, 2 layers": (
        lambda: Apply(lambda m, x: m.fc(m.rnn(x)[0]), rnn=nn.LSTM(WIDTH, WIDTH, 2, dropout=0.2), fc=_linear()),
        _vector),
    "lstm, packed": (lambda: Apply(_packed, rnn=nn.LSTM(WIDTH, WIDTH, batch_first=True)), _vector),
    "lstm cells": (lambda: Apply(_cells, cell=nn.LSTMCell(WIDTH, WIDTH)), _vector),
    "moe, every expert": (lambda: Experts(sparse=False), _vector),
    "moe, chosen tokens": (lambda: Experts(sparse=True), _vector),
    "multi-head attention": (
        lambda: Apply(lambda m, x: m.a(x, x, x, attn_mask=torch.ones(LENGTH, LENGTH).triu(1).bool())[0],
                      a=nn.MultiheadAttention(WIDTH, 2, dropout=0.1, batch_first=True)),
        _vector),
    "pixel shuffle": (
        lambda: nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(), nn.AdaptiveMaxPool2d(5)),
        _image),
    "rnn": (lambda: Apply(lambda m, x: m.rnn(x)[1], rnn=nn.RNN(WIDTH, 8, nonlinearity="relu")), _vector),
    "spectral and weight norm": (
        lambda: nn.Sequential(parametrizations.spectral_norm(_linear()), parametrizations.weight_norm(_linear())),
        _vector),
    "teacher without gradients": (lambda: Apply(_teacher, teacher=_linear(), student=_linear()), _vector),
    "tied autoencoder": (lambda: Apply(lambda m, x: F.linear(F.relu(m.a(x)), m.a.weight.t()), a=_linear()), _vector),
    "tied embedding": (_tied, _words),
    "transformer": (
        lambda: nn.Transformer(WIDTH, 2, 1, 1, 32, batch_first=True), _pair),
    "transformer encoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True), 2), _vector),
    "u-net": (UNet, _image),
    "unused parameters": (lambda: Apply(lambda m, x: m.a(x), a=_linear(), never=_linear()), _vector),
    "variational": (lambda: Apply(_variational, encode=_linear(), spread=_linear(), decode=_linear()), _vector),
}  # fmt: skip


def mean_square(output: Tensor) -> Tensor:
    """A loss for networks that have none."""
    return output.square().mean()


def model(name: str) -> nn.Module:
    """A network with random weights, in training mode."""
    return MODELS[name][0]().train()
