"""A placed module inside the user's own loop gives the numbers of the module itself."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from baechi.backends.plans import plan_in_program_order
from baechi.backends.pytorch.autograd import PlacedForward, make_forward
from baechi.errors import BaechiError
from baechi.frontends.pytorch import capture
from baechi.frontends.pytorch.program import TorchProgram
from baechi.ir.plan import Plan

Call = Callable[[torch.Tensor], dict[str, Any]]
X, TARGET = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3])


class Net(nn.Module):
    """Tied weights, BatchNorm, dropout, an unused parameter, and results of every sort."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.3)
        self.lift, self.one, self.two = nn.Linear(8 * 36, 5), nn.Linear(5, 5, bias=False), nn.Linear(5, 5)
        self.two.weight = self.one.weight
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        h = self.lift(self.drop(torch.relu(self.norm(self.conv(x)))).flatten(1))
        return {"logits": self.two(self.one(h)), "hidden": h, "best": h.argmax(1), "weight": self.one.weight}


@pytest.fixture(scope="module")
def program() -> TorchProgram:
    return capture(make(), (X,))


def make() -> Net:
    torch.manual_seed(0)
    return Net()


def spread(program: TorchProgram, devices: int) -> Plan:
    where = {g: f"cpu:{i % devices}" for i, g in enumerate(program.graph.groups)}
    return plan_in_program_order(program.graph, {o.name: where[o.group or o.name] for o in program.graph.ops})


@pytest.fixture(params=[1, 2, 4])
def placed(program: TorchProgram, request: pytest.FixtureRequest) -> Iterator[tuple[Net, PlacedForward]]:
    module = make()
    forward = make_forward(program, spread(program, request.param), module)
    yield module, forward
    forward.close()


def train(module: nn.Module, call: Call, *, calls: int) -> list[float]:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    losses = []
    torch.manual_seed(1)
    for _ in range(4):
        optimizer.zero_grad(set_to_none=False)
        loss = torch.zeros(())
        for _ in range(calls):
            out = call(X)
            loss = loss + nn.functional.cross_entropy(out["logits"], TARGET) + out["hidden"].pow(2).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 0.5)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("calls", [1, 2])
def test_an_unchanged_loop_trains_as_eager_does(placed: tuple[Net, PlacedForward], calls: int) -> None:
    """With two calls before one backward, each call's saved tensors are its own."""
    module, forward = placed
    eager = copy.deepcopy(module)
    assert train(module, forward, calls=calls) == pytest.approx(train(eager, eager, calls=calls), rel=1e-5)
    for name, value in eager.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert module.unused.grad is None


def test_results_have_the_structure_of_the_module(placed: tuple[Net, PlacedForward]) -> None:
    module, forward = placed
    torch.manual_seed(1)
    expected = copy.deepcopy(module)(X)
    torch.manual_seed(1)
    found = forward(X)
    assert found.keys() == expected.keys()
    assert not found["best"].requires_grad
    for name in ("logits", "hidden", "best", "weight"):
        torch.testing.assert_close(found[name], expected[name])
    with torch.no_grad():
        found["weight"].zero_()  # a copy: the parameter stays as it is
    assert module.one.weight.abs().sum() > 0


def test_without_grad_nothing_is_recorded(placed: tuple[Net, PlacedForward]) -> None:
    with torch.no_grad():
        assert not placed[1](X)["logits"].requires_grad


def test_parameters_are_read_at_each_call(placed: tuple[Net, PlacedForward]) -> None:
    module, forward = placed
    module.two.bias = nn.Parameter(torch.full((5,), 100.0))
    with torch.no_grad():
        assert forward(X)["logits"].min() > 50


def test_a_second_backward_is_refused(placed: tuple[Net, PlacedForward]) -> None:
    loss = placed[1](X)["logits"].sum()
    loss.backward(retain_graph=True)
    with pytest.raises(BaechiError, match="second time") as error:
        loss.backward()
    assert error.value.code == "B609"


def test_an_input_that_wants_a_gradient_is_refused(placed: tuple[Net, PlacedForward]) -> None:
    with pytest.raises(BaechiError, match="wants a gradient") as error:
        placed[1](X.clone().requires_grad_())
    assert error.value.code == "B608"


def test_it_recovers_from_a_failed_call(placed: tuple[Net, PlacedForward]) -> None:
    module, forward = placed
    weight, module.lift.weight = module.lift.weight, nn.Parameter(torch.ones(5, 3))
    with pytest.raises(BaechiError) as error:
        forward(X)
    assert error.value.code == "B601"
    module.lift.weight = weight
    assert forward(X)["logits"].shape == (4, 5)


def test_gradients_do_not_share_memory() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))

        def forward(self) -> torch.Tensor:
            return self.a + self.b

    module = Sum()
    program = capture(module, ())
    forward = make_forward(program, spread(program, 2), module)
    forward().sum().backward()
    forward.close()
    assert module.a.grad is not None
    assert module.b.grad is not None
    module.a.grad.mul_(5)
    assert module.b.grad.tolist() == [1, 1, 1]


def test_a_step_with_a_loss_is_refused(program: TorchProgram) -> None:
    with pytest.raises(BaechiError, match="of its own"):
        make_forward(replace(program, has_loss=True), spread(program, 1), make())
