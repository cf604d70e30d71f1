"""The plain run is eager training as a person writes it: the same losses as a loop by hand and as a placed run."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from baechi.backends.plans import plan_in_program_order
from baechi.cli.plain import run_plain_apart
from baechi.errors import BaechiError
from baechi.profile.plain import train_plain
from baechi.profile.run import train
from baechi.target import Target, load_target

SEED = 7


class Net(nn.Module):
    """Dropout, BatchNorm, an unused and a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.drop, self.out = nn.Dropout(0.4), nn.Linear(4 * 36, 5)
        self.unused = nn.Linear(2, 2)
        self.norm.bias.requires_grad_(False)

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return self.out(self.drop(self.norm(self.conv(x)).relu()).flatten(1)) * scale


class OwnLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> dict[str, Any]:
        return nn.functional.cross_entropy(self.net(x), target), "extra"  # type: ignore[return-value]


def by_hand(loss: Callable[[nn.Module], torch.Tensor], build: Callable[[], nn.Module], steps: int) -> list[float]:
    torch.manual_seed(SEED)
    module = build()
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(module)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return torch.randn(4, 3, 8, 8, generator=random), torch.randint(5, (4,), generator=random)


def test_losses_are_those_of_a_loop_by_hand() -> None:
    x, target = inputs()
    measured = train_plain(
        Net,
        (x,),
        {"scale": 0.5},
        target,
        loss=nn.functional.cross_entropy,
        optimizer="adamw",
        optimizer_options={"lr": 0.01},
        steps=3,
        warmup=2,
        seed=SEED,
    )
    hand = by_hand(lambda m: nn.functional.cross_entropy(m(x, scale=0.5), target), Net, 5)
    assert list(measured.losses) == hand
    assert len(measured.all_seconds) == 3


def test_a_loss_of_the_module_itself_and_one_without_a_target() -> None:
    x, target = inputs()
    options: dict[str, Any] = {"optimizer": torch.optim.AdamW, "optimizer_options": {"lr": 0.01}, "seed": SEED}
    own = train_plain(OwnLoss, (x, target), loss="output", steps=2, **options)
    assert list(own.losses) == by_hand(lambda m: m(x, target)[0], OwnLoss, 3)
    alone = train_plain(Net, (x,), loss=lambda out: out.square().mean(), steps=2, **options)
    assert list(alone.losses) == by_hand(lambda m: m(x).square().mean(), Net, 3)


def test_without_a_loss_the_gradient_of_each_output_is_ones() -> None:
    x, _ = inputs()
    made: list[nn.Module] = []

    def build() -> nn.Module:
        made.append(Net().eval())
        return made[-1]

    measured = train_plain(build, (x,), loss=None, optimizer="sgd", optimizer_options={"lr": 0.1}, steps=1, warmup=0)
    assert measured.losses == ()
    torch.manual_seed(0)
    twin = Net().eval()
    start = copy.deepcopy(twin.state_dict())
    for _ in range(2):  # the step that measures memory trains as well
        twin.zero_grad()
        twin(x).sum().backward()
        with torch.no_grad():
            for p in twin.parameters():
                p -= 0.1 * p.grad if p.grad is not None else 0.0
    trained = made[0].state_dict()
    assert not torch.equal(start["conv.weight"], trained["conv.weight"])
    assert torch.allclose(trained["conv.weight"], twin.state_dict()["conv.weight"], atol=1e-6)


def test_a_bad_loss_is_said_as_in_a_capture() -> None:
    with pytest.raises(BaechiError, match="no scalar") as caught:
        train_plain(Net, (inputs()[0],), loss=lambda out: out, steps=1)
    assert caught.value.code == "B704"


def test_losses_are_those_of_the_placed_run() -> None:
    target = load_target("models:transformer", batch=2, options=SMALL)
    job = target.job
    assert job is not None
    plan = plan_in_program_order(target.graph, two_devices(target))
    placed = train(target.program, plan, job.build, job.inputs, steps=2, memory=False, seed=SEED)
    plain = plain_of(target, seed=SEED)
    assert plain.losses == pytest.approx(placed.losses, rel=1e-5)


SMALL = {"layers": 1, "width": 16, "heads": 2, "ffn": 32, "vocab": 50, "length": 6}


def two_devices(target: Target) -> dict[str, str]:
    groups = {g: f"cpu:{i % 2}" for i, g in enumerate(target.graph.groups)}
    return {op.name: groups[op.group] if op.group else "cpu:0" for op in target.graph.ops}


def plain_of(target: Target, seed: int) -> Any:
    job = target.job
    assert job is not None
    return train_plain(
        job.build,
        job.args,
        job.kwargs,
        job.target,
        loss=job.loss,
        optimizer=job.optimizer,
        optimizer_options=job.optimizer_options,
        steps=2,
        seed=seed,
    )


def test_peak_of_a_plain_step_in_closed_form() -> None:
    """Weight, gradient, two Adam states and the input, a megabyte each, and the update's two temporaries.

    torch updates one parameter as a list of one, whose temporaries are as large as the list.
    """

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(250_000))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.dot(self.weight)

    options = {"optimizer": "adam", "optimizer_options": {"foreach": False}}
    measured = train_plain(Scale, (torch.ones(250_000),), loss="output", steps=1, **options)  # type: ignore[arg-type]
    assert measured.peak_bytes["cpu"] == pytest.approx(7e6, rel=0.001)


def test_apart_it_gives_the_same_losses() -> None:
    target = load_target("models:transformer", batch=2, options=SMALL)
    outcome = run_plain_apart(target.description, steps=2, seed=SEED, threads=1)
    assert outcome.error is None
    assert outcome.losses == pytest.approx(plain_of(target, seed=SEED).losses, rel=1e-6)
    assert len(outcome.seconds) == 2


def test_apart_under_a_cap_it_dies_and_says_so() -> None:
    outcome = run_plain_apart({"target": "models:gnmt", "batch": 2}, cap_bytes=100 * 2**20, steps=1)
    assert outcome.error == "cannot allocate memory under a cap of 100 MiB"
    assert outcome.losses == ()


def test_apart_a_bad_target_is_the_error_it_always_is() -> None:
    with pytest.raises(BaechiError) as caught:
        run_plain_apart({"target": "models:inception_v9"})
    assert caught.value.code == "B101"
