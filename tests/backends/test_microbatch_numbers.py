"""Micro-batches train to the numbers of a plain loop that accumulates gradients, wherever the ops are."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baechi.api import plan
from baechi.backends.plans import plan_in_program_order
from baechi.backends.pytorch.executor import Executor
from baechi.cost import Problem
from baechi.errors import BaechiError
from baechi.frontends.pytorch import TorchProgram, capture
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.plan import Plan
from baechi.placers import make_plan
from baechi.placers.base import Placer
from baechi.placers.pipeline import pipeline_schedules
from baechi.sim.evaluate import Schedule

OPTIONS = {"lr": 0.05, "momentum": 0.9}


def chain() -> nn.Module:
    """Buffers that the step writes, and random numbers in each stage."""
    stages = [nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3)) for _ in range(4)]
    return nn.Sequential(*stages, nn.Linear(8, 5))


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.out = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.rand_like(x) + F.dropout2d(x, 0.2)
        return self.out(F.dropout(torch.relu_(self.norm(self.a(x + 0.1 * noise))), 0.4).flatten(1))


class Tied(nn.Module):
    """One weight at both ends, so that its gradient is a sum; a parameter that the loss reads alone."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(5, 8), nn.Linear(8, 5, bias=False)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.scale = nn.Parameter(torch.ones(()))
        self.out.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.layer(self.embed(tokens)).mean(1)) + self.scale


def images() -> tuple[Tensor, Tensor]:
    return torch.randn(8, 3, 6, 6), torch.randint(5, (8,))


def tokens() -> tuple[Tensor, Tensor]:
    return torch.randint(5, (8, 6)), torch.randint(5, (8,))


def features() -> tuple[Tensor, Tensor]:
    return torch.randn(8, 8), torch.randint(5, (8,))


CASES: list[tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, Tensor]]]] = [
    (chain, features),
    (Images, images),
    (Tied, tokens),
]


def captured(build: Callable[[], nn.Module], inputs: tuple[Tensor, Tensor], count: int) -> TorchProgram:
    x, y = inputs
    options: Any = {"optimizer": "momentum", "optimizer_options": OPTIONS}
    return capture(seeded(build), (x,), loss=F.cross_entropy, target=y, microbatches=count, **options)


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build()


def plain_losses(module: nn.Module, inputs: tuple[Tensor, Tensor], count: int, steps: int) -> list[Tensor]:
    """Gradient accumulation as everybody writes it."""
    x, y = inputs
    optimizer = torch.optim.SGD(module.parameters(), **OPTIONS)
    torch.manual_seed(7)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        total = torch.zeros(())
        for xs, ys in zip(x.chunk(count), y.chunk(count), strict=True):
            loss = F.cross_entropy(module(xs), ys)
            (loss / count).backward()
            total += loss.detach()
        optimizer.step()
        losses.append(total / count)
    return losses


def check_equal(program: TorchProgram, made: Plan, build: Callable[[], nn.Module], inputs: Any, count: int) -> None:
    """Losses, weights, buffers, momentum and the random stream after three steps, bit for bit."""
    module = seeded(build)
    wanted = plain_losses(module, inputs, count, 3)
    stream = torch.get_rng_state()
    with Executor(program, made).load(seeded(build)) as executor:
        torch.manual_seed(7)
        found = [executor.step(*inputs) for _ in range(3)]
        assert torch.equal(torch.get_rng_state(), stream)
        state = executor.state_dict()
    assert [loss.item() for loss in found] == [loss.item() for loss in wanted]
    for name, value in module.state_dict().items():
        assert torch.equal(state[name], value), name


@pytest.mark.parametrize(("build", "inputs"), CASES)
@pytest.mark.parametrize(("count", "devices"), [(2, 3), (4, 2)])
def test_any_placement_trains_as_gradient_accumulation(build: Any, inputs: Any, count: int, devices: int) -> None:
    given = inputs()
    program = captured(build, given, count)
    choose = random.Random(count)
    where = {group: f"cpu:{choose.randrange(devices)}" for group in program.graph.groups}
    made = plan_in_program_order(program.graph, {op.name: where[op.group or op.name] for op in program.graph.ops})
    check_equal(program, made, build, given, count)


@dataclass(frozen=True)
class Numbered(Placer):
    """One of the pipeline's schedules."""

    name: ClassVar[str] = "numbered"
    coarsens: ClassVar[bool] = False
    number: int = 0

    def schedules(self, problem: Problem, seed: int) -> Iterator[Schedule]:
        yield list(pipeline_schedules(problem))[self.number]


def test_every_pipeline_trains_as_gradient_accumulation() -> None:
    given = features()
    program = captured(chain, given, 4)
    devices = tuple(Device(f"cpu:{i}", 1 << 30, flops_per_second={"float32": 1e8}) for i in range(3))
    problem = Problem(program.graph, Cluster(devices, Link(1e-6, 1e9)))
    count = len(list(pipeline_schedules(problem)))
    assert count >= 10
    for number in range(0, count, 3):
        made = make_plan(Numbered(number), problem, 0)
        assert len(set(made.device.values())) == 3
        check_equal(program, made, chain, given, 4)


def test_draws_do_not_hold_up_the_next_copy() -> None:
    program = captured(chain, features(), 4)
    order = [program.graph.ops[i].name for i in program.graph.order]
    drawing = [name for name in order if program.graph.op[name].kind == "aten.bernoulli_"]
    assert [program.graph.op[name].copy for name in drawing] == [k for k in range(4) for _ in range(4)]
    for name in drawing:
        (empty,) = program.graph.op[name].inputs
        assert program.graph.producer[empty].inputs == ()


def test_one_gradient_of_a_parameter_lives() -> None:
    """Later gradients are added in place to the first."""
    program = captured(chain, features(), 4)
    graph = program.graph
    for tensor in program.gradients.values():
        sums = [op for op in graph.ops if op.kind == "aten.add_" and graph.tensor[op.outputs[0].name].alias_of]
        assert tensor in {op.outputs[0].name for op in sums}
    assert {op.phase for op in sums} == {"backward", "forward"}


def test_what_is_not_a_batch_is_given_whole() -> None:
    class Scaled(nn.Linear):
        def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
            return super().forward(x * scale) + shift

    x, scale, shift = torch.randn(6, 3), torch.randn(3), torch.tensor(2.0)
    torch.manual_seed(0)
    module = Scaled(3, 2)
    placed = plan(module, (x, scale, shift), loss=torch.sum, optimizer="sgd", microbatches=3, cluster="2x1MiB")
    tensors = placed.program.graph.tensor
    assert [tensors[f"input_{i}"].shape for i in range(3)] == [(6, 3), (3,), ()]
    assert [op.name for op in placed.program.graph.ops if op.kind == "aten.slice"] == [
        f"input_0_mb{k}" for k in range(3)
    ]
    wanted = sum(module(part, scale, shift).sum() for part in x.chunk(3)) / 3
    with placed.executor(module) as executor:
        torch.testing.assert_close(executor.step(x, scale, shift), wanted)


@pytest.mark.parametrize(
    ("args", "options", "code", "what"),
    [
        ((torch.ones(6, 3),), {"loss": torch.sum, "microbatches": 4}, "B708", "a batch of 6 cannot be split into 4"),
        ((torch.ones(6, 3),), {"loss": torch.sum, "microbatches": 0}, "B708", "0 is no number of micro-batches"),
        ((torch.ones(6, 3),), {"microbatches": 2}, "B709", "without a loss"),
        ((torch.tensor(1.0),), {"loss": torch.sum, "microbatches": 2}, "B708", "no input is a batch"),
    ],
)
def test_what_cannot_be_split_is_an_error(args: Any, options: Any, code: str, what: str) -> None:
    with pytest.raises(BaechiError, match=what) as raised:
        capture(nn.Linear(3, 2), args, **options)
    assert raised.value.code == code
