"""What an optimiser keeps for a parameter, against what the real one allocates."""

from typing import Any

import pytest
import torch
from torch import nn, optim

from baechi.errors import BaechiError
from baechi.frontends.pytorch import capture
from baechi.frontends.pytorch.optimizers import optimizer_spec, state_bytes

SHAPES = [(), (4,), (3, 4), (2, 3, 4, 5)]


def _real(cls: Any, options: dict[str, Any], shape: tuple[int, ...]) -> int:
    """Bytes of the state after one step, step counters (scalars of their own) left out."""
    parameter = nn.Parameter(torch.ones(shape))
    parameter.grad = torch.ones(shape)
    optimizer = cls([parameter], **options)
    optimizer.step()
    return sum(
        v.numel() * v.element_size()
        for k, v in optimizer.state[parameter].items()
        if isinstance(v, torch.Tensor) and k not in {"step", "eta", "mu", "mu_product"}
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (optim.SGD, {"lr": 0.1}),
        (optim.SGD, {"lr": 0.1, "momentum": 0.9}),
        (optim.Adam, {}),
        (optim.Adam, {"amsgrad": True}),
        (optim.AdamW, {}),
        (optim.RMSprop, {}),
        (optim.RMSprop, {"momentum": 0.5, "centered": True}),
    ],
)
def test_known_optimisers(cls: Any, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    spec = optimizer_spec(cls, options)
    assert spec is not None
    assert state_bytes(spec, torch.empty(shape, device="meta")) == _real(cls, options, shape)


@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("cls", [optim.Adagrad, optim.Adadelta, optim.Adamax, optim.NAdam, optim.Rprop, optim.ASGD])
def test_measured_optimisers(cls: Any, shape: tuple[int, ...]) -> None:
    spec = optimizer_spec(cls)
    assert spec is not None
    assert state_bytes(spec, torch.empty(shape, device="meta")) == _real(cls, {}, shape)


@pytest.mark.parametrize("shape", [(8,), (6, 9), (4, 6, 9)])
def test_factored_state_is_smaller_than_the_parameter(shape: tuple[int, ...]) -> None:
    spec = optimizer_spec(optim.Adafactor)
    assert spec is not None
    assert state_bytes(spec, torch.empty(shape, device="meta")) == _real(optim.Adafactor, {}, shape)


def test_an_instance_gives_its_class_and_options() -> None:
    module = nn.Linear(2, 2)
    optimizer = optim.AdamW(module.parameters(), lr=0.25, betas=(0.5, 0.6))
    optim.lr_scheduler.StepLR(optimizer, 1)
    spec = optimizer_spec(optimizer)
    assert spec is not None
    assert (spec.cls, spec.name) == (optim.AdamW, "adamw")
    assert (spec.options["lr"], spec.options["betas"]) == (0.25, (0.5, 0.6))
    again = spec.cls([nn.Parameter(torch.ones(1))], **spec.options)  # type: ignore[call-arg, arg-type]
    known = optimizer.param_groups[0]
    assert {k: v for k, v in again.param_groups[0].items() if k != "params"} == {
        k: v for k, v in known.items() if k not in {"params", "initial_lr"}
    }


@pytest.mark.parametrize("bad", ["adamax2", 3, nn.Linear])
def test_what_is_no_optimiser_is_refused(bad: Any) -> None:
    with pytest.raises(BaechiError, match="optimiser"):
        optimizer_spec(bad)


def test_an_unknown_option_is_refused_and_the_known_ones_named() -> None:
    with pytest.raises(BaechiError) as caught:
        optimizer_spec("adam", {"momentum": 0.9})
    assert "betas" in caught.value.help


def test_groups_that_differ_are_refused() -> None:
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    groups = [{"params": a.parameters(), "lr": 0.1}, {"params": b.parameters(), "lr": 0.2}]
    with pytest.raises(BaechiError, match="groups"):
        optimizer_spec(optim.SGD(groups))


def test_an_optimiser_that_needs_a_closure_is_refused() -> None:
    with pytest.raises(BaechiError) as caught:
        capture(nn.Linear(2, 2), (torch.ones(1, 2),), loss=torch.sum, optimizer=optim.LBFGS)
    assert caught.value.code == "B704"
