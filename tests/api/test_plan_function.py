"""`baechi.plan` and `plan.apply`: the numbers of the plain model, and the errors."""

import copy

import pytest
import torch
from torch import nn

import baechi
from baechi.errors import BaechiError, Infeasible
from baechi.ir.json import read_plan


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.4), nn.Linear(16, 4))


X, Y = torch.randn(6, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 3, 0, 1])


def plain_losses(model: nn.Module, steps: int) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(X), Y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("placer", ["single", "round-robin", "m-etf", "auto"])
def test_a_placed_step_trains_like_the_plain_model(placer: str) -> None:
    model, plain = small_net(), small_net()
    placed = baechi.plan(
        model,
        (X,),
        loss=nn.functional.cross_entropy,
        target=Y,
        optimizer="adamw",
        optimizer_options={"lr": 1e-2},
        cluster="3x1MiB",
        placer=placer,
    )
    torch.manual_seed(5)
    with placed.apply(model) as step:
        losses = [step(X, target=Y).item() for _ in range(5)]
    torch.manual_seed(5)
    assert losses == plain_losses(plain, 5)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-6, atol=1e-7)


def test_a_plan_without_a_loss_is_applied_to_the_model_itself() -> None:
    model, plain = small_net(), small_net()
    placed = baechi.plan(model, (X,), cluster="2x1MiB", placer="round-robin")
    assert placed.apply(model) is model
    torch.manual_seed(5)
    losses = plain_losses(model, 3)
    torch.manual_seed(5)
    assert losses == plain_losses(plain, 3)
    assert model.baechi.plans == (placed.plan,)  # type: ignore[union-attr]


def test_a_saved_plan_is_the_same_plan(tmp_path: object) -> None:
    placed = baechi.plan(small_net(), (X,), cluster="2x1MiB")
    path = f"{tmp_path}/plan.json"
    placed.save(path)
    assert read_plan(path) == placed.plan
    assert placed.timeline.step_seconds == pytest.approx(placed.plan.predicted.step_seconds)
    assert placed.timeline.peak_bytes == dict(placed.plan.predicted.peak_bytes)


def test_the_model_is_not_changed_by_planning() -> None:
    model = small_net()
    before = copy.deepcopy(model.state_dict())
    baechi.plan(model, (X,), cluster="2x1MiB")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert "forward" not in vars(model)


def test_too_little_memory_is_proved() -> None:
    with pytest.raises(Infeasible, match="no plan fits") as raised:
        baechi.plan(small_net(), (X,), loss=torch.sum, optimizer="adam", cluster="2x400")
    assert raised.value.proved
    assert raised.value.code == "B501"


def test_unknown_placers_and_clusters_are_named() -> None:
    with pytest.raises(BaechiError, match="no placer 'best'"):
        baechi.plan(small_net(), (X,), cluster="2x1MiB", placer="best")
    with pytest.raises(BaechiError, match="rtx2081"):
        baechi.plan(small_net(), (X,), cluster="2xrtx2081")
