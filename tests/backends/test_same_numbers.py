"""A placed step trains to the numbers of plain eager training, wherever its ops are."""

import copy
import functools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from baechi.backends.plans import plan_in_program_order
from baechi.backends.pytorch.executor import Executor
from baechi.frontends.pytorch import capture
from baechi.frontends.pytorch.program import TorchProgram
from baechi.ir.graph import Graph
from baechi.ir.plan import Plan


def random_plan(graph: Graph, devices: int, seed: int) -> Plan:
    """Each colocation group anywhere."""
    choose = random.Random(seed)
    where = {group: f"cpu:{choose.randrange(devices)}" for group in graph.groups}
    return plan_in_program_order(graph, {op.name: where[op.group or op.name] for op in graph.ops})


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(3, 8, 3)
        self.drop, self.out = nn.Dropout(0.3), nn.Linear(8 * 36, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu_(self.norm(self.a(x))) + nn.functional.dropout(self.b(x), 0.2, self.training)
        return self.out(self.drop(h).flatten(1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.layers, self.out = nn.TransformerEncoder(layer, 2), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.layers(x).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lift, self.cell, self.out = nn.Linear(6, 8), nn.LSTM(8, 8, 2, batch_first=True), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.cell(self.lift(x))[0][:, -1])


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(5, 8), nn.Linear(8, 8), nn.Linear(8, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.mix(self.embed(tokens))).mean(1))


CASES: dict[str, tuple[type[nn.Module], Callable[[], torch.Tensor]]] = {
    "convolutional": (Convolutional, lambda: torch.randn(4, 3, 8, 8)),
    "attention": (Attention, lambda: torch.randn(4, 6, 16)),
    "recurrent": (Recurrent, lambda: torch.randn(4, 5, 6)),
    "tied": (Tied, lambda: torch.randint(5, (4, 3))),
}
OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"lr": 0.1}),
    "momentum": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}),
    "adam": (torch.optim.Adam, {"lr": 1e-3}),
    "adamw": (torch.optim.AdamW, {"lr": 1e-3, "amsgrad": True}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 1e-3, "momentum": 0.5, "centered": True}),
}
TARGET = torch.tensor([0, 1, 2, 3])


def make(case: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    cls, example = CASES[case]
    return cls(), example()


def train(
    module: nn.Module, x: torch.Tensor, optimizer: torch.optim.Optimizer, steps: int = 5
) -> tuple[list[float], dict[str, torch.Tensor]]:
    losses = []
    torch.manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(x), TARGET)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, module.state_dict()


@functools.lru_cache(maxsize=2)
def captured(case: str, optimizer: str | None, *, train: bool = True) -> TorchProgram:
    module, x = make(case)
    cls, options = OPTIMIZERS[optimizer] if optimizer else (None, {})
    return capture(
        module.train(train),
        (x,),
        loss=nn.functional.cross_entropy,
        target=TARGET,
        optimizer=cls,
        optimizer_options=options,
    )


def check(case: str, optimizer: str, devices: int, seed: int = 0) -> None:
    module, x = make(case)
    cls, options = OPTIMIZERS[optimizer]
    program = captured(case, optimizer)
    eager = copy.deepcopy(module)
    plain = cls(eager.parameters(), **options)
    losses, state = train(eager, x, plain)
    with Executor(program, random_plan(program.graph, devices, seed)).load(module) as executor:
        torch.manual_seed(1)
        assert [executor.step(x, TARGET).item() for _ in range(5)] == pytest.approx(losses, rel=1e-5)
        placed, placed_plain = executor.state_dict(), executor.optimizer_state_dict()
    assert placed.keys() == state.keys()
    for name, value in state.items():
        torch.testing.assert_close(placed[name], value, rtol=1e-5, atol=1e-6)
    expected = plain.state_dict()
    assert placed_plain["param_groups"] == expected["param_groups"]
    assert placed_plain["state"].keys() == expected["state"].keys()
    for i, values in expected["state"].items():
        for name, value in values.items():
            torch.testing.assert_close(placed_plain["state"][i][name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("devices", [1, 2, 3, 4])
@pytest.mark.parametrize("case", CASES)
def test_any_placement_trains_as_eager_does(case: str, devices: int) -> None:
    for seed in range(2):
        check(case, "momentum", devices, seed)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_are_those_of_torch(optimizer: str) -> None:
    check("tied", optimizer, 2)


def test_dropout_draws_in_the_order_of_eager_code() -> None:
    """Bitwise: one stream of random numbers, whatever the threads do."""
    module, x = make("convolutional")
    losses, _ = train(copy.deepcopy(module), x, torch.optim.SGD(module.parameters(), lr=0.0))
    program = captured("convolutional", None)
    for seed in range(5):
        with Executor(program, random_plan(program.graph, 3, seed)).load(module) as executor:
            torch.manual_seed(1)
            first = executor.step(x, TARGET).item()
        assert first == losses[0]


def test_training_goes_on_from_a_checkpoint_of_eager_training() -> None:
    module, x = make("convolutional")
    eager = copy.deepcopy(module).eval()
    program = captured("convolutional", "adam", train=False)
    plain = torch.optim.Adam(eager.parameters(), lr=1e-3)
    train(eager, x, plain, 3)
    with Executor(program, random_plan(program.graph, 2, 0)).load(module) as executor:
        executor.load_state_dict(eager.state_dict())
        executor.load_optimizer_state_dict(plain.state_dict())
        placed = [executor.step(x, TARGET).item() for _ in range(3)]
        fresh = torch.optim.Adam(eager.parameters(), lr=1e-3)
        fresh.load_state_dict(executor.optimizer_state_dict())
    assert placed == pytest.approx(train(eager, x, plain, 3)[0], rel=1e-5)


def test_gradients_of_a_step_without_optimizer() -> None:
    module, x = make("tied")
    program = captured("tied", None)
    nn.functional.cross_entropy(module(x), TARGET).backward()
    with Executor(program, random_plan(program.graph, 3, 1)).load(module) as executor:
        executor.step(x, TARGET)
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None
            torch.testing.assert_close(executor.gradients[name], parameter.grad)
