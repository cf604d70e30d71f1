"""A placed module in the loops that people write: outputs, gradients and buffers equal those of the module itself."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import baechi
from baechi.errors import BaechiError

X = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """Dropout, batch norm, two layers."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.one, self.norm, self.drop, self.two = (
            nn.Linear(8, 6),
            nn.BatchNorm1d(6),
            nn.Dropout(dropout),
            nn.Linear(6, 4),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One layer after the other."""
        result: torch.Tensor = self.two(self.drop(torch.relu(self.norm(self.one(x)))))
        return result


class Tied(Net):
    """Two outputs, of which one needs the last layer; the first layer is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Linear(8, 6)
        self.again.weight = self.one.weight

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        """The net's output, and what does not depend on most of it."""
        return super().forward(x), torch.tanh(self.again(x))


class Average(nn.Module):
    """Scales by a running mean that it assigns anew; backward needs the old one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))
        self.mean: torch.Tensor
        self.register_buffer("mean", torch.full((8,), 2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The old mean, in a view, then the new one."""
        out = x * self.weight * self.mean[None]
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
        return out


def place(module: nn.Module) -> nn.Module:
    placed: nn.Module = baechi.place(module, cluster="2x8MiB", placer="round-robin")
    return placed


def check(make: Callable[[], nn.Module], use: Callable[[Any], Any]) -> nn.Module:
    """`use` gives the same on the module and on its placed copy, and leaves them with the same tensors."""
    torch.manual_seed(0)
    plain = make()
    placed = place(copy.deepcopy(plain))
    torch.manual_seed(3)
    expected = use(plain)
    torch.manual_seed(3)
    torch.testing.assert_close(use(placed), expected)
    assert len(placed.baechi.plans) > 0  # type: ignore[union-attr, arg-type]
    for (name, mine), other in zip(placed.named_parameters(), plain.parameters(), strict=True):
        assert (mine.grad is None) == (other.grad is None), name
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, other.grad, msg=name)
    torch.testing.assert_close(placed.state_dict(), plain.state_dict())
    return placed


def backward(output: torch.Tensor) -> torch.Tensor:
    output.square().sum().backward()
    return output


def test_accumulation_clipping_schedule_and_scaler() -> None:
    def use(model: nn.Module) -> list[float]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        losses = []
        for _ in range(3):
            for part in (X, X[:4]):
                loss = model(part).square().mean()
                scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            losses.append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.1)))
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return losses

    placed = check(Net, use)
    assert len(placed.baechi.plans) == 2  # type: ignore[union-attr, arg-type]


def test_two_forwards_before_one_backward() -> None:
    check(Net, lambda model: backward(model(X) + model(X * 2)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_what_plain_autocast_gives(dtype: torch.dtype) -> None:
    def use(model: nn.Module) -> list[torch.Tensor]:
        with torch.autocast("cpu", dtype=dtype):
            output = model(X)
            loss = output.float().square().mean()
        loss.backward()
        return [output, loss, model(X)]  # the last in full precision

    check(lambda: Net(dropout=0.0), use)


def test_the_type_of_autocast_is_part_of_the_plan() -> None:
    def use(model: nn.Module) -> list[torch.Tensor]:
        found = [model(X)]
        for dtype in (torch.bfloat16, torch.float16, torch.bfloat16):
            with torch.autocast("cpu", dtype=dtype):
                found.append(model(X))
        return found

    placed = check(lambda: Net().eval(), use)
    assert len(placed.baechi.plans) == 3  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_train_and_eval_without_gradients(mode: Callable[[], Any]) -> None:
    def use(model: nn.Module) -> list[torch.Tensor]:
        model.eval()
        with mode():
            first = model(X).clone()
        model.train()
        second = backward(model(X))
        model.eval()
        return [first, second, model(X)]

    check(Net, use)


def test_gradients_of_inputs() -> None:
    def use(model: nn.Module) -> list[Any]:
        x = X.clone().requires_grad_()
        hidden = x * 2
        output = backward(model(hidden) + model(x))
        return [output, x.grad]

    check(Net, use)


def test_a_placed_module_inside_a_plain_one() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 8), Net(), nn.Linear(4, 2))

    torch.manual_seed(0)
    plain = make()
    whole = copy.deepcopy(plain)
    place(whole[1])  # type: ignore[index]
    for model in (plain, whole):
        torch.manual_seed(3)
        backward(model(X))
    for mine, other in zip(whole.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_what_no_used_output_depends_on_gets_no_gradient() -> None:
    """An optimiser must skip it, as it does in eager code: zeros would decay it."""

    def use(model: nn.Module) -> torch.Tensor:
        return backward(model(X)[1])

    placed = check(Tied, use)
    assert placed.two.weight.grad is None  # type: ignore[union-attr]


def test_a_buffer_that_is_assigned_anew() -> None:
    check(Average, lambda model: [backward(model(X)), backward(model(X) + model(X))])


def test_tied_parameters_and_both_outputs() -> None:
    check(Tied, lambda model: [backward(sum(o.sum() for o in model(X))), model(X)[0]])


def test_frozen_parameters_and_a_change_of_mind() -> None:
    def use(model: Any) -> list[torch.Tensor]:
        model.one.requires_grad_(False)
        found = [backward(model(X))]
        model.one.requires_grad_(True)
        found.append(backward(model(X)))
        model.requires_grad_(False)
        return [*found, model(X)]

    check(Net, use)


def test_another_type_of_weights() -> None:
    check(Net, lambda model: [model(X).double(), backward(model.double()(X.double()))])


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("called_before", [False, True])
def test_loading_a_state(assign: bool, called_before: bool) -> None:
    def use(model: nn.Module) -> torch.Tensor:
        if called_before:
            model(X)
        state = {n: t.clone() * 2 if t.is_floating_point() else t.clone() for n, t in model.state_dict().items()}
        model.load_state_dict(state, assign=assign)
        return backward(model(X))

    check(Net, use)


def test_a_changed_attribute_and_an_exchanged_layer() -> None:
    def use(model: Any) -> list[torch.Tensor]:
        found = [model(X)]
        model.drop.p = 0.0
        found.append(model(X))
        model.two = nn.Linear(6, 4)
        return [*found, backward(model(X))]

    check(Net, use)


def test_hooks_of_the_module_and_inside_it() -> None:
    def use(model: Any) -> list[torch.Tensor]:
        found = [model(X)]
        model.register_forward_hook(lambda module, args, output: output * 2)
        found.append(model(X))
        handle = model.one.register_forward_hook(lambda module, args, output: output + 1)
        found.append(backward(model(X)))
        handle.remove()
        return [*found, model(X)]

    check(Net, use)


def test_hooks_on_parameters() -> None:
    def use(model: Any) -> torch.Tensor:
        model.one.weight.register_hook(lambda gradient: gradient * 2)
        return backward(model(X))

    check(Net, use)


def test_functional_call_and_checkpointing() -> None:
    def use(model: nn.Module) -> list[torch.Tensor]:
        doubled = {name: p * 2 for name, p in model.named_parameters()}
        functional = torch.func.functional_call(model, doubled, (X,))
        return [backward(functional), backward(checkpoint(model, X, use_reentrant=False))]

    check(lambda: Net().eval(), use)


def test_a_lazy_module_gets_its_shapes_at_the_first_call() -> None:
    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.LazyLinear(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.layer(x)
            return found

    torch.manual_seed(0)
    model = place(Lazy())
    first = model(X)
    assert torch.equal(model(X), first)
    assert len(model.baechi.plans) == 1  # type: ignore[union-attr, arg-type]


def test_results_may_be_changed_in_place() -> None:
    def use(model: nn.Module) -> torch.Tensor:
        output = model(X)
        output.mul_(2)
        return backward(output)

    check(Net, use)


class Saved(Net):
    """Returns what its backward pass needs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(super().forward(x))


@pytest.mark.parametrize("what", ["weight", "result"])
def test_a_change_that_backward_would_miss_is_refused(what: str) -> None:
    """As eager code does."""
    model: Any = place(Saved())
    output = model(X)
    with torch.no_grad():
        (model.two.weight if what == "weight" else output).mul_(2)
    with pytest.raises(BaechiError, match="changed in place") as error:
        output.sum().backward()
    assert error.value.code == "B609"


def test_a_gradient_of_a_gradient_is_refused() -> None:
    model = place(Net())
    with pytest.raises(BaechiError, match="gradient of a gradient") as error:
        torch.autograd.grad(model(X).square().sum(), list(model.parameters()), create_graph=True)
    assert error.value.code == "B609"
