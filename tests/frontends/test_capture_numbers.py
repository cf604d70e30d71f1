"""A captured step, run with real tensors, gives the numbers of eager code."""

import copy
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

from baechi.frontends.pytorch import capture, extract
from baechi.frontends.pytorch.adapter import Unsupported

CASES = ["cnn", "encoder", "seq2seq", "tied"]
EXACT = {"cnn", "encoder", "tied"}  # an unrolled LSTM sums its gates in another order


def _check(name: str, case: Any, run_joint: Any, *, training: bool = True) -> None:
    module, args, target = case(name)
    module.train(training)
    loss = nn.functional.cross_entropy
    program = capture(module, args, loss=loss, target=target, optimizer="adam")
    reference = copy.deepcopy(module)
    torch.manual_seed(1)
    expected = loss(reference(*args), target)
    expected.backward()
    torch.manual_seed(1)
    outputs, gradients, buffers = run_joint(program, module, (*args, target))
    tolerance = {"rtol": 0, "atol": 0} if name in EXACT else {"rtol": 1e-4, "atol": 1e-6}
    torch.testing.assert_close(outputs[program.outputs[0]], expected.detach(), **tolerance)
    assert list(gradients) == [n for n, _ in module.named_parameters()]
    for key, parameter in reference.named_parameters():
        torch.testing.assert_close(gradients[key], parameter.grad, **tolerance, check_stride=False)
    assert list(buffers) == [n for n, _ in module.named_buffers()]
    for key, buffer in reference.named_buffers():
        torch.testing.assert_close(buffers[key], buffer, rtol=0, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_the_joint_graph_equals_eager(name: str, case: Any, run_joint: Any) -> None:
    _check(name, case, run_joint)


@pytest.mark.parametrize("name", CASES)
def test_the_second_tracer_equals_eager(name: str, case: Any, run_joint: Any) -> None:
    with mock.patch.object(extract, "trace_joint", side_effect=Unsupported("no such interface")):
        # Its dropout inside attention has other noise than eager's.
        _check(name, case, run_joint, training=name != "encoder")


@pytest.mark.parametrize("name", CASES)
def test_the_portable_graph_has_no_op_of_one_device_and_the_same_loss(name: str, case: Any, run_joint: Any) -> None:
    module, args, target = case(name)
    module.eval()
    program = capture(module, args, loss=nn.functional.cross_entropy, target=target, portable=True)
    assert not [op.kind for op in program.graph.ops if "mkldnn" in op.kind or "_for_cpu" in op.kind]
    outputs, _, _ = run_joint(program, module, (*args, target))
    expected = nn.functional.cross_entropy(module(*args), target)
    torch.testing.assert_close(outputs[program.outputs[0]], expected.detach(), rtol=1e-5, atol=1e-6)


def test_a_tied_parameter_is_one_with_one_gradient(case: Any) -> None:
    module, args, target = case("tied")
    program = capture(module, args, loss=nn.functional.cross_entropy, target=target, optimizer="sgd")
    assert program.tied == {"head.weight": "embed.weight"}
    assert list(program.parameters) == ["embed.weight", "norm.weight", "norm.bias"]


def test_a_step_without_a_loss_is_fed_the_gradients_of_its_outputs(run_joint: Any) -> None:
    torch.manual_seed(0)
    module = nn.LSTM(3, 4, batch_first=True)
    x, tangents = torch.randn(2, 5, 3), [torch.randn(2, 5, 4), torch.randn(1, 2, 4), torch.randn(1, 2, 4)]
    program = capture(module, (x,))
    assert not program.has_loss
    assert len(program.tangents) == 3
    outputs, gradients, _ = run_joint(program, module, (x,), tangents)
    y, (h, c) = module(x)
    torch.autograd.backward([y, h, c], tangents)
    for made, expected in zip(outputs.values(), [y, h, c], strict=True):
        torch.testing.assert_close(made, expected.detach(), rtol=1e-4, atol=1e-6)
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6)


class _Shared(nn.Module):
    """Outputs that share memory with each other and with an input, and one that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 6)

    def forward(self, x: torch.Tensor) -> Any:
        y = torch.tanh(self.fc(x))
        return {"y": y, "half": y[:, :3], "x": x, "n": 7, "rows": y.view(-1)}


def test_outputs_that_share_memory_come_out_apart(run_joint: Any) -> None:
    torch.manual_seed(0)
    module, x = _Shared(), torch.randn(2, 4)
    program = capture(module, (x,))
    outputs, _, _ = run_joint(program, module, (x,))
    expected = torch.utils._pytree.tree_leaves(module(x))
    assert [n is None for n in program.outputs] == [not isinstance(t, torch.Tensor) for t in expected]
    for name, value in zip(program.outputs, expected, strict=True):
        if name is not None:
            torch.testing.assert_close(outputs[name], value.detach(), rtol=0, atol=0)


class _Counter(nn.Module):
    """A buffer that the forward pass assigns anew, and a tensor constant."""

    seen: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.register_buffer("seen", torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = self.seen * 2 + 1
        out: torch.Tensor = self.fc(x) * torch.tensor([1.0, 2.0, 3.0]) * self.seen
        return out


def test_an_assigned_buffer_is_written_back_and_constants_are_kept(run_joint: Any) -> None:
    module, x = _Counter(), torch.randn(2, 3)
    program = capture(module, (x,), loss=torch.sum, optimizer="momentum")
    outputs, _, buffers = run_joint(program, module, (x,))
    assert buffers["seen"] == 5.0
    assert module.seen == 2.0
    assert [v.tolist() for v in program.constants.values()] == [[1.0, 2.0, 3.0]]
    assert outputs[program.outputs[0]] == module(x).sum()


def test_gpt2_of_transformers_equals_eager(run_joint: Any) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=50, n_positions=16)
    module = transformers.GPT2LMHeadModel(config)
    ids = torch.randint(50, (2, 8))
    kwargs = {"input_ids": ids, "labels": ids, "use_cache": False}
    program = capture(module, kwargs=kwargs, loss="output", optimizer="adamw")
    torch.manual_seed(3)
    expected = module(**kwargs).loss
    expected.backward()
    torch.manual_seed(3)
    outputs, gradients, _ = run_joint(program, module, ids_leaves(kwargs))
    assert outputs[program.outputs[0]] == expected
    assert program.tied == {"lm_head.weight": "transformer.wte.weight"}
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-5, atol=1e-7)


def ids_leaves(kwargs: dict[str, Any]) -> list[Any]:
    return torch.utils._pytree.tree_leaves(((), kwargs))
