"""A placed step is checked on fake GPUs."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from baechi.backends.plans import plan_in_program_order
from baechi.backends.pytorch.check import check_devices, cpu_only_kernels
from baechi.frontends.pytorch import capture
from baechi.frontends.pytorch.program import TorchProgram
from baechi.ir.plan import Plan


def spread(program: TorchProgram, devices: int = 4) -> Plan:
    where = {g: f"gpu{i % devices}" for i, g in enumerate(program.graph.groups)}
    return plan_in_program_order(program.graph, {o.name: where[o.group or o.name] for o in program.graph.ops})


@pytest.fixture(scope="module")
def program() -> TorchProgram:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 5)
    )
    return capture(
        module,
        (torch.randn(2, 3, 8, 8),),
        loss=nn.functional.cross_entropy,
        target=torch.tensor([0, 1]),
        optimizer="adam",
        portable=True,
    )


def test_a_valid_plan_passes(program: TorchProgram) -> None:
    assert check_devices(program, spread(program)) == []


def test_each_missing_transfer_is_found(program: TorchProgram) -> None:
    plan = spread(program)
    for key in plan.transfers:
        problems = check_devices(program, replace(plan, transfers=tuple(t for t in plan.transfers if t != key)))
        assert problems
        assert all(f"'{key[0]}'" in p and f"'{key[2]}'" in p for p in problems)


def test_tensors_left_behind_are_found_by_running_it(program: TorchProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake run is a check of its own: here copies do not move anything."""
    monkeypatch.setattr("baechi.backends.pytorch.check._move", lambda tensor, _: tensor)
    assert check_devices(program, spread(program))


def test_factories_make_their_tensors_on_the_device_of_the_op() -> None:
    class Scaled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            steps = torch.arange(3, dtype=torch.float32, device=x.device) * torch.tensor([1.0, 2.0, 3.0])
            return (super().forward(x * steps) + torch.ones(2)).sum()

    program = capture(Scaled(3, 2), (torch.ones(4, 3),), loss="output", optimizer="sgd")
    assert program.constants
    assert check_devices(program, spread(program, 3)) == []


def test_kernels_of_the_cpu_alone_are_named() -> None:
    """Attention captured as it runs on the CPU is one call that exists there only."""
    module, args = nn.MultiheadAttention(8, 2), (torch.randn(3, 2, 8),) * 3

    def total(output: tuple[torch.Tensor, object]) -> torch.Tensor:
        return output[0].sum()

    def made(*, portable: bool) -> TorchProgram:
        return capture(module, args, {"need_weights": False}, loss=total, optimizer="sgd", portable=portable)

    found = made(portable=False)
    problems = check_devices(found, spread(found))
    assert len(problems) == 2  # forward and backward
    assert all("_scaled_dot_product_flash_attention_for_cpu" in p and "no CUDA kernel" in p for p in problems)
    generic = made(portable=True)
    assert check_devices(generic, spread(generic)) == []


def test_the_list_of_cpu_kernels() -> None:
    known = cpu_only_kernels()
    assert {"mkldnn_rnn_layer", "_scaled_dot_product_flash_attention_for_cpu"} <= known
    assert not known & {"add.Tensor", "mm", "convolution", "native_batch_norm", "view", "native_dropout", "arange"}
