"""`baechi.place`: the class stays the class, the loop stays the loop, the numbers stay the numbers."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

import baechi
from baechi.errors import BaechiError
from baechi.ir.json import write_plan

X = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))


class Plain(nn.Module):
    """Has what is easily broken: dropout, batch norm, a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(8, 6), nn.Linear(8, 6)
        self.norm, self.drop = nn.BatchNorm1d(6), nn.Dropout(0.3)

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        """Two branches and their sum."""
        mixed: torch.Tensor = self.drop(self.norm(self.left(x)) + torch.tanh(self.right(x)))
        return mixed * scale


@baechi.place(cluster="2x1MiB", placer="round-robin")
class Placed(Plain):
    """The same, placed."""


def pair() -> tuple[Plain, Placed]:
    plain, placed = Plain(), Placed()
    placed.load_state_dict(plain.state_dict())
    return plain, placed


def train(model: nn.Module, steps: int = 3) -> list[float]:
    torch.manual_seed(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(X).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_the_loop_gives_the_same_numbers() -> None:
    plain, placed = pair()
    assert train(placed) == train(plain)
    for name, value in plain.state_dict().items():
        assert torch.equal(placed.state_dict()[name], value), name
    assert set(placed.baechi.plans[0].device.values()) == {"cpu:0", "cpu:1"}


def test_the_class_stays_the_class() -> None:
    placed = Placed()
    assert type(placed) is Placed
    assert isinstance(placed, Plain)
    assert placed.state_dict().keys() == Plain().state_dict().keys()
    placed(X)
    again = pickle.loads(pickle.dumps(placed))
    assert type(again) is Placed
    torch.manual_seed(0)
    expected = placed(X)
    torch.manual_seed(0)
    torch.testing.assert_close(again(X), expected)
    assert len(again.baechi.plans) == 1  # placed as all instances of its class are
    assert "forward" not in vars(copy.deepcopy(placed))


def test_nothing_happens_before_the_first_call() -> None:
    assert Placed().baechi is None


def test_plans_are_kept_by_shape_and_mode() -> None:
    placed = Placed()
    for _ in range(2):
        placed(X)
    assert len(placed.baechi.plans) == 1
    placed(X[:3])
    placed.eval()
    with torch.no_grad():
        placed(X)
    assert len(placed.baechi.plans) == 3


def test_eval_without_gradients_equals_the_plain_model() -> None:
    plain, placed = pair()
    plain.eval()
    placed.eval()
    with torch.no_grad():
        assert torch.equal(placed(X, scale=2.0), plain(X, scale=2.0))


def test_an_instance_is_placed_and_no_other_of_its_class() -> None:
    first, second = nn.Linear(8, 2), nn.Linear(8, 2)
    assert baechi.place(first, cluster="2x1MiB") is first
    expected = torch.nn.functional.linear(X, first.weight, first.bias)
    assert torch.equal(first(X), expected)
    assert len(first.baechi.plans) == 1
    second(X)
    assert second.baechi is None


def test_a_step_function_places_the_modules_that_it_uses() -> None:
    plain, model = Plain(), Plain()
    model.load_state_dict(plain.state_dict())

    @baechi.place(cluster="2x1MiB")
    def step(net: nn.Module) -> list[float]:
        """One epoch."""
        return train(net)

    assert step.__doc__ == "One epoch."
    assert step(model) == train(plain)
    assert len(model.baechi.plans) == 1


def test_a_subclass_that_overrides_forward_is_left_alone() -> None:
    class Further(Placed):
        def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
            return super().forward(x, scale) + 1

    model = Further().eval()
    assert torch.equal(model(X), Plain.forward(model, X) + 1)
    assert model.baechi is None


def test_disabled_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAECHI_DISABLE", "1")
    placed = Placed()
    placed(X)
    assert placed.baechi is None or not placed.baechi.plans
    model = nn.Linear(8, 2)
    assert baechi.place(model, cluster="nonsense") is model


def test_a_pinned_plan_must_match(tmp_path: Path) -> None:
    model = nn.Linear(8, 2)
    path = tmp_path / "plan.json"
    write_plan(baechi.plan(model, (X,), cluster="2x1MiB").plan, path)
    pinned = baechi.place(nn.Linear(8, 2), pin=str(path))
    pinned(X)
    with pytest.raises(BaechiError, match="another step"):
        pinned(X[:2])


def test_bad_use_is_named() -> None:
    with pytest.raises(BaechiError, match="no option 'clusters'"):
        baechi.place(nn.Linear(1, 1), clusters="2x1MiB")
    with pytest.raises(BaechiError, match="was given a int"):
        baechi.place(3)
