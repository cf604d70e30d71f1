"""What cannot be captured says why and where; the module is left as it was."""

import inspect
from typing import Any

import pytest
import torch
from torch import nn

from baechi.errors import BaechiError
from baechi.frontends.pytorch import capture


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(x)
        if y.sum() > 0:  # the branch
            y = y * 2
        return y


class Counts(Branches):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = int(x.sum().item())  # the branch
        out: torch.Tensor = self.fc(x) * n
        return out


class Picks(Branches):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.nonzero(x[:, 0])  # the branch
        out: torch.Tensor = self.fc(x)[rows]
        return out


def _line(cls: type, mark: str) -> int:
    lines, start = inspect.getsourcelines(cls)
    return start + next(i for i, line in enumerate(lines) if mark in line)


@pytest.mark.parametrize("cls", [Branches, Counts, Picks])
def test_data_dependent_code_is_named_with_its_line(cls: type[nn.Module]) -> None:
    with pytest.raises(BaechiError) as caught:
        capture(cls(), (torch.ones(2, 3),), loss=torch.sum)
    assert caught.value.code == "B701"
    assert f"test_capture_errors.py:{_line(cls, '# the branch')}:" in caught.value.what
    assert caught.value.help


class WrongShapes(Branches):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc(x.T)  # wrong
        return out


class Raises(Branches):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.note = x
        self.fc.bias = None
        raise KeyError("no such expert")  # wrong


@pytest.mark.parametrize(("cls", "message"), [(WrongShapes, "same reduction dim"), (Raises, "no such expert")])
def test_failing_code_is_named_with_its_line_and_message(cls: type[nn.Module], message: str) -> None:
    with pytest.raises(BaechiError) as caught:
        capture(cls(), (torch.ones(2, 3),), loss=torch.sum)
    assert caught.value.code == "B702"
    assert f"test_capture_errors.py:{_line(cls, '# wrong')}: " in caught.value.what
    assert message in caught.value.what


@pytest.mark.parametrize("args", [(), (torch.ones(2, 3), 1)])
def test_inputs_of_another_number_are_refused(args: tuple[Any, ...]) -> None:
    with pytest.raises(BaechiError) as caught:
        capture(Branches(), args)
    assert caught.value.code == "B703"


def _scalar_free(y: torch.Tensor) -> torch.Tensor:
    return y.relu()


@pytest.mark.parametrize(
    "loss",
    [_scalar_free, lambda y: 3.0, lambda y: y.detach().sum(), lambda y: torch.zeros(()), "output"],
    ids=["matrix", "number", "detached", "constant", "output"],
)
def test_a_loss_that_is_no_trainable_scalar_is_refused(loss: Any) -> None:
    with pytest.raises(BaechiError) as caught:
        capture(nn.Linear(2, 2), (torch.ones(1, 2),), loss=loss)
    assert caught.value.code == "B704"


def _state(module: nn.Module) -> list[Any]:
    """Every object that hangs at the module, and every weight's content."""
    seen: list[Any] = []
    for owner in module.modules():
        for key, value in vars(owner).items():
            seen.append((key, id(value)))
            if isinstance(value, dict | list):
                items = value.items() if isinstance(value, dict) else enumerate(value)
                seen += [(key, k, id(v)) for k, v in items]
    tensors = [*module.named_parameters(), *module.named_buffers()]
    seen += [(n, t.requires_grad, t.grad is None, t.tolist()) for n, t in tensors]
    return seen


@pytest.mark.parametrize("name", ["cnn", "seq2seq", "tied"])
def test_a_captured_module_is_unchanged(name: str, case: Any) -> None:
    module, args, target = case(name)
    before, random = _state(module), torch.get_rng_state()
    capture(module, args, loss=nn.functional.cross_entropy, target=target, optimizer="adam")
    assert _state(module) == before
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("cls", [Branches, Raises, WrongShapes])
def test_a_module_that_fails_is_unchanged(cls: type[nn.Module]) -> None:
    module = cls()
    before = _state(module)
    with pytest.raises(BaechiError):
        capture(module, (torch.ones(2, 3),), loss=torch.sum)
    assert _state(module) == before
    assert torch.compiler.is_compiling() is False
    assert nn.modules.module._global_forward_hooks == {}
