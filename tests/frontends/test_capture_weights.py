"""Weights that are tied, shared, frozen or random: what the captured step knows of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baechi.api import place_graph
from baechi.backends.pytorch.executor import Executor
from baechi.config import parse_cluster
from baechi.errors import BaechiError
from baechi.frontends.pytorch import capture


class TiedBuffers(nn.Module):
    """One running mean under two names, in two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
        self.second.running_mean = self.first.running_mean

    def forward(self, x: Tensor) -> Any:
        return self.second(torch.tanh(self.first(x)))


def test_a_tied_buffer_has_all_its_names() -> None:
    torch.manual_seed(0)
    module, x = TiedBuffers(), torch.randn(8, 3)
    program = capture(module, (x,), loss=lambda y: y.square().sum(), optimizer="sgd", optimizer_options={"lr": 0.1})
    assert program.tied == {"second.running_mean": "first.running_mean"}
    assert "second.running_mean" not in program.buffers
    plan = place_graph(program.graph, parse_cluster("2x100%"), "m-etf")
    with Executor(program, plan).load(module) as executor:
        executor.step(x)
        state = executor.state_dict()
    loss = module(x).square().sum()
    loss.backward()
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    assert state.keys() == module.state_dict().keys()
    for name, value in module.state_dict().items():
        torch.testing.assert_close(state[name], value)


def test_weights_that_overlap_without_being_tied_are_refused() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = nn.Parameter(module[0].weight.data)
    with pytest.raises(BaechiError, match=r"'0\.weight' and '1\.weight' share memory") as caught:
        capture(module, (torch.ones(1, 3),), loss=torch.sum)
    assert caught.value.code == "B706"


def test_columns_of_one_block_are_weights_of_their_own() -> None:
    whole = torch.randn(3, 6)
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[0].weight, module[1].weight = nn.Parameter(whole[:, :3]), nn.Parameter(whole[:, 3:])
    assert len(capture(module, (torch.ones(1, 3),), loss=torch.sum).gradients) == 4


class Seeds(nn.Module):
    def __init__(self, seed: Callable[[], Any]) -> None:
        super().__init__()
        self.fc, self.seed = nn.Linear(2, 2), seed

    def forward(self, x: Tensor) -> Tensor:
        self.seed()
        return nn.functional.dropout(self.fc(x))


@pytest.mark.parametrize("seed", [lambda: torch.manual_seed(0), lambda: torch.seed()], ids=["manual_seed", "seed"])
def test_a_step_that_seeds_is_refused(seed: Callable[[], Any]) -> None:
    module, state = Seeds(seed), torch.get_rng_state()
    with pytest.raises(BaechiError) as caught:
        capture(module, (torch.ones(1, 2),), loss=torch.sum)
    assert caught.value.code == "B705"
    assert "test_capture_weights.py:" in caught.value.what
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.manual_seed(0).initial_seed() == 0


class Stacked(nn.Module):
    def __init__(self, cls: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.rnn = cls(4, 4, 2, dropout=0.5, **options)

    def forward(self, x: Tensor) -> Any:
        return self.rnn(x)[0]


@pytest.mark.parametrize(
    ("cls", "portable", "options"),
    [
        (nn.LSTM, False, {}),
        (nn.LSTM, True, {"bidirectional": True, "batch_first": True}),
        (nn.GRU, False, {"batch_first": True}),
        (nn.RNN, False, {"bidirectional": True}),
    ],
)
def test_recurrent_layers_keep_their_dropout(
    cls: type[nn.RNNBase], portable: bool, options: dict[str, Any], run_joint: Any
) -> None:
    torch.manual_seed(0)
    module, x = Stacked(cls, **options), torch.randn(2, 3, 4)
    program = capture(module, (x,), loss=torch.sum, portable=portable)
    torch.manual_seed(1)
    expected = module(x).sum()
    expected.backward()
    torch.manual_seed(1)
    outputs, gradients, _ = run_joint(program, module, (x,))
    torch.testing.assert_close(outputs[program.outputs[0]], expected.detach())
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad)


class EagerOnly(nn.Module):
    """Makes its mask only when nothing compiles it, as some models of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        if mask is None and not torch.compiler.is_compiling():
            mask = torch.ones_like(x)
        return self.fc(x) * mask[:, :1]  # type: ignore[index]


def test_code_that_leaves_something_out_when_compiled_is_traced_as_eager_code(run_joint: Any) -> None:
    module, x = EagerOnly(), torch.randn(3, 2)
    program = capture(module, (x,), loss=torch.sum)
    outputs, _, _ = run_joint(program, module, (x,))
    torch.testing.assert_close(outputs[program.outputs[0]], module(x).sum().detach())


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x: Tensor, scale: float, shift: Tensor | None = None, mode: str = "up") -> Any:
        y = self.fc(x) * (scale if mode == "up" else -scale)
        return y if shift is None else y + shift


def test_inputs_that_are_no_tensors_are_part_of_the_step() -> None:
    module, x = Scaled(), torch.ones(1, 2)
    program = capture(module, (x, 2.0, None), {"mode": "down"}, loss=torch.sum)
    assert program.given == {1: 2.0, 2: None, 3: "down"}
    plan = place_graph(program.graph, parse_cluster("2x100%"), "m-etf")
    with Executor(program, plan).load(module) as executor:
        torch.testing.assert_close(executor.step(x, 2.0, None, "down"), module(x, 2.0, mode="down").sum().detach())
        for other in ((3.0, None, "down"), (2.0, x, "down"), (2.0, None, "up"), (2, None, "down")):
            with pytest.raises(BaechiError) as caught:
                executor.step(x, *other)
            assert caught.value.code == "B608"
