"""Optimisers whose groups have different options, against the plain optimiser."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from baechi.backends.plans import plan_in_program_order
from baechi.backends.pytorch.executor import Executor
from baechi.backends.pytorch.optimizer import Optimizers
from baechi.errors import BaechiError
from baechi.frontends.pytorch import capture
from baechi.frontends.pytorch.optimizers import optimizer_spec
from baechi.frontends.pytorch.program import TorchProgram

STEPS = 3
Make = Callable[[nn.Module], torch.optim.Optimizer]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(5, 8), nn.LayerNorm(8)
        self.mix, self.head = nn.Linear(8, 8), nn.Linear(8, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(torch.tanh(self.mix(self.norm(self.embed(tokens)))).mean(1)).square().sum()
        return out


def decayed(module: nn.Module) -> torch.optim.Optimizer:
    """No weight decay on norms and biases, which come first, so that numbers are not in the module's order."""
    flat = [p for p in module.parameters() if p.dim() < 2]
    return torch.optim.AdamW(
        [
            {"params": flat, "weight_decay": 0.0},
            {"params": [p for p in module.parameters() if p.dim() == 2], "lr": 0.01},
        ],
        lr=0.05,
        weight_decay=0.3,
    )


def partial(module: nn.Module) -> torch.optim.Optimizer:
    """The norm is in no group."""
    return torch.optim.SGD([p for n, p in module.named_parameters() if "norm" not in n], lr=0.1, momentum=0.9)


def reversed_order(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(list(module.parameters())[::-1], lr=0.02)


def plain(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(module.parameters(), lr=0.02)


MAKES: list[Make] = [decayed, partial, reversed_order, plain]


def tokens() -> torch.Tensor:
    return torch.tensor([[0, 1, 2], [3, 4, 0]])


def net() -> nn.Module:
    torch.manual_seed(0)
    return Net()


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int = STEPS) -> list[float]:
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = module(tokens())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def placed(program: TorchProgram, module: nn.Module) -> Executor:
    groups = {group: f"cpu:{i % 2}" for i, group in enumerate(program.graph.groups)}
    plan = plan_in_program_order(program.graph, {op.name: groups[op.group or op.name] for op in program.graph.ops})
    return Executor(program, plan).load(dict(module.named_parameters()), dict(module.named_buffers()))


def assert_state(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert got["param_groups"] == wanted["param_groups"]
    assert sorted(got["state"]) == sorted(wanted["state"])
    for i, state in wanted["state"].items():
        assert sorted(got["state"][i]) == sorted(state)
        for key, value in state.items():
            torch.testing.assert_close(got["state"][i][key], value, rtol=0, atol=0)


@pytest.mark.parametrize("make", MAKES)
def test_numbers_and_state_are_those_of_the_plain_optimiser(make: Make) -> None:
    module = net()
    optimizer = make(module)
    program = capture(module, (tokens(),), loss="output", optimizer=optimizer)
    with placed(program, module) as executor:
        losses = [executor.step(tokens()).item() for _ in range(STEPS)]
        assert losses == train(module, optimizer)
        state = executor.state_dict()
        for name, value in module.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=0, atol=0)
        assert_state(executor.optimizer_state_dict(), optimizer.state_dict())


@pytest.mark.parametrize("make", MAKES)
def test_state_goes_to_the_plain_optimiser_and_back(make: Make) -> None:
    module = net()
    optimizer = make(module)
    program = capture(module, (tokens(),), loss="output", optimizer=optimizer)
    train(module, optimizer)
    with placed(program, module) as executor:
        executor.load_optimizer_state_dict(optimizer.state_dict())
        here = [executor.step(tokens()).item() for _ in range(STEPS)]
        twin = copy.deepcopy(module)
        fresh = make(twin)
        fresh.load_state_dict(optimizer.state_dict())
        assert here == train(twin, fresh)
        fresh.load_state_dict(executor.optimizer_state_dict())
        twin.load_state_dict(executor.state_dict())
        assert train(twin, fresh) == [executor.step(tokens()).item() for _ in range(STEPS)]


def test_one_group_over_all_parameters_has_no_groups() -> None:
    module = net()
    assert (spec := optimizer_spec(plain(module), module=module)) is not None
    assert spec.groups == ()
    assert spec.options["lr"] == 0.02
    assert spec.for_parameter("mix.bias") is spec


def test_options_of_each_parameter() -> None:
    module = net()
    spec = optimizer_spec(decayed(module), {"eps": 0.5}, module)
    assert spec is not None
    bias, weight = spec.for_parameter("mix.bias"), spec.for_parameter("embed.weight")
    assert bias is not None
    assert weight is not None
    assert [bias.options[k] for k in ("lr", "weight_decay", "eps")] == [0.05, 0.0, 0.5]
    assert [weight.options[k] for k in ("lr", "weight_decay", "eps")] == [0.01, 0.3, 0.5]
    assert spec.for_parameter("other") is None
    made = spec.make(dict(module.named_parameters()))
    assert [(len(g["params"]), g["lr"]) for g in made.param_groups] == [(3, 0.05), (2, 0.01)]


def test_a_parameter_in_no_group_has_no_update_and_no_state() -> None:
    module = net()
    program = capture(module, (tokens(),), loss="output", optimizer=partial(module))
    assert sorted(program.updates) == ["embed.weight", "mix.bias", "mix.weight"]
    assert "norm.weight" in program.gradients
    ops = {op.name: op for op in program.graph.ops}
    assert ops[program.parameters["norm.weight"]].persistent_bytes == 8 * 4
    assert ops[program.parameters["mix.bias"]].persistent_bytes == 2 * 8 * 4


def test_a_frozen_parameter_of_a_group_keeps_its_number() -> None:
    module = net()
    module.get_submodule("mix").requires_grad_(False)
    optimizer = decayed(module)
    program = capture(module, (tokens(),), loss="output", optimizer=optimizer)
    with placed(program, module) as executor:
        losses = [executor.step(tokens()).item() for _ in range(STEPS)]
        assert losses == train(module, optimizer)
        assert_state(executor.optimizer_state_dict(), optimizer.state_dict())


def test_a_parameter_of_another_module_is_refused() -> None:
    module, other = net(), nn.Linear(3, 4)
    optimizer = torch.optim.SGD([*module.parameters(), *other.parameters()], lr=0.1)
    with pytest.raises(BaechiError, match=r"shape \[4, 3\]") as error:
        optimizer_spec(optimizer, module=module)
    assert error.value.code == "B704"


def test_an_optimiser_of_a_copy_serves_when_its_groups_agree() -> None:
    module = net()
    spec = optimizer_spec(plain(net()), module=module)
    assert spec is not None
    assert (spec.groups, spec.options["lr"]) == ((), 0.02)
    with pytest.raises(BaechiError, match="groups"):
        optimizer_spec(decayed(net()), module=module)


def test_state_of_other_groups_is_refused() -> None:
    module = net()
    program = capture(module, (tokens(),), loss="output", optimizer=decayed(module))
    with (
        placed(program, module) as executor,
        pytest.raises(BaechiError, match=r"for 5 parameters, not for 3 \+ 2") as e,
    ):
        executor.load_optimizer_state_dict(plain(module).state_dict())
    assert e.value.code == "B607"


def test_state_by_name() -> None:
    torch.manual_seed(0)
    weights = {"a": torch.rand(3), "b": torch.rand(2, 2)}
    gradients = {name: torch.rand_like(w) for name, w in weights.items()}
    spec = optimizer_spec("adam", {"lr": 0.1})
    assert spec is not None

    def fresh() -> tuple[dict[str, torch.Tensor], Optimizers]:
        own = {name: w.clone() for name, w in weights.items()}
        return own, Optimizers(spec, own)

    def step(optimizers: Optimizers, times: int) -> None:
        for _ in range(times):
            for name, gradient in gradients.items():
                optimizers.update(name)(gradient)

    through, optimizers = fresh()
    assert optimizers.state_by_name() == {"a": {}, "b": {}}
    step(optimizers, 2)
    saved = copy.deepcopy(optimizers.state_by_name())
    assert sorted(saved["a"]) == ["exp_avg", "exp_avg_sq", "step"]
    middle = {name: w.clone() for name, w in through.items()}
    step(optimizers, 3)
    resumed = Optimizers(spec, middle)
    resumed.load_by_name(saved)
    step(resumed, 3)
    for name, weight in through.items():
        torch.testing.assert_close(middle[name], weight, rtol=0, atol=0)
    resumed.load_by_name({"a": saved["a"]})
    assert resumed.state_by_name()["b"] == {}
    assert resumed.state_by_name()["a"]["exp_avg"] is not saved["a"]["exp_avg"]
