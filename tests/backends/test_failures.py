"""What goes wrong in a step reaches the caller with its place, and leaves no thread behind."""

import _thread
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn

from baechi.backends.plans import plan_in_program_order
from baechi.backends.pytorch.executor import Executor
from baechi.errors import BaechiError
from baechi.frontends.pytorch import capture
from baechi.frontends.pytorch.program import OptimizerSpec, TorchProgram
from baechi.ir.plan import Plan

_others: set[threading.Thread] = set()
"""Threads of earlier tests in this process: what dynamo compiled keeps its own."""


def ours() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("baechi") and t not in _others]


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    _others.clear()
    _others.update(threading.enumerate())
    yield
    assert ours() == []


class Pair(nn.Module):
    """Two branches over a table of four rows; a token of 4 or more is out of range."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.left, self.right = nn.Embedding(4, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        h = self.table(tokens)
        return (self.left(h) + self.right(h).relu()).sum()


def placed(devices: int = 3) -> tuple[nn.Module, TorchProgram, Plan]:
    torch.manual_seed(0)
    module = Pair()
    program = capture(module, (torch.zeros(2, dtype=torch.long),), loss="output", optimizer="sgd")
    where = {g: f"cpu:{i % devices}" for i, g in enumerate(program.graph.groups)}
    return (
        module,
        program,
        plan_in_program_order(program.graph, {op.name: where[op.group or op.name] for op in program.graph.ops}),
    )


def train_for_ever(executor: Executor) -> None:
    while True:
        executor.step(torch.tensor([0, 3]))


def test_an_error_names_its_op_and_device_and_ends_all_threads() -> None:
    module, program, plan = placed()
    op = next(o for o in program.graph.ops if o.kind == "aten.embedding")
    executor = Executor(program, plan).load(module)
    executor.step(torch.tensor([0, 3]))
    assert len(ours()) >= 3
    with pytest.raises(BaechiError) as error:
        executor.step(torch.tensor([0, 4]))
    assert error.value.code == "B601"
    assert f"op '{op.name}' on device '{plan.device[op.name]}'" in error.value.what
    assert "IndexError" in error.value.what
    assert ours() == []
    with pytest.raises(BaechiError, match="closed"):
        executor.step(torch.tensor([0, 3]))
    assert executor.state_dict().keys() == module.state_dict().keys()


def test_an_interrupt_ends_the_step_and_the_threads() -> None:
    module, program, plan = placed()
    executor = Executor(program, plan).load(module)
    thread = threading.Thread(target=lambda: (time.sleep(0.2), _thread.interrupt_main()))
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        train_for_ever(executor)
    thread.join()
    executor.close()
    assert ours() == []


def test_a_forgotten_executor_ends_its_threads() -> None:
    module, program, plan = placed()
    executor = Executor(program, plan).load(module)
    executor.step(torch.tensor([0, 1]))
    del executor
    assert ours() == []


def test_a_program_that_never_closes_ends() -> None:
    code = (
        "import torch\n"
        "from baechi.backends.plans import plan_in_program_order\n"
        "from baechi.backends.pytorch.executor import Executor\n"
        "from baechi.frontends.pytorch import capture\n"
        "m = torch.nn.Linear(3, 2)\n"
        "p = capture(m, (torch.ones(4, 3),), loss=torch.sum, optimizer='sgd')\n"
        "where = {o.name: f'cpu:{i % 2}' for i, o in enumerate(p.graph.ops)}\n"
        "where |= {p.updates[n]: where[o] for n, o in p.parameters.items()}\n"
        "e = Executor(p, plan_in_program_order(p.graph, where)).load(m)\n"
        "print(e.step(torch.ones(4, 3)).item() == m(torch.ones(4, 3)).sum().item())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "takes 1 inputs, not 0"),
        ((torch.zeros(3, dtype=torch.long),), "shape"),
        ((torch.zeros(2),), "float32"),
        ((1,), "no tensor"),
    ],
)
def test_inputs_unlike_the_captured_ones_are_refused(inputs: tuple[object, ...], message: str) -> None:
    module, program, plan = placed()
    with Executor(program, plan).load(module) as executor:
        with pytest.raises(BaechiError, match=message) as error:
            executor.step(*inputs)
        assert error.value.code == "B608"
        executor.step(torch.tensor([0, 1]))


def test_missing_and_misshapen_weights_are_refused() -> None:
    module, program, plan = placed()
    weights = dict(module.named_parameters())
    with Executor(program, plan) as executor:
        with pytest.raises(BaechiError, match="no parameters yet"):
            executor.step(torch.tensor([0, 1]))
        with pytest.raises(BaechiError, match=r"'left.bias' is missing"):
            executor.load({n: w for n, w in weights.items() if n != "left.bias"})
        with pytest.raises(BaechiError, match=r"'left.bias' has shape \[2\]"):
            executor.load({**weights, "left.bias": torch.ones(2)})


def test_an_optimizer_with_a_closure_is_refused() -> None:
    module = nn.Linear(3, 2)
    program = capture(module, (torch.ones(4, 3),), loss=torch.sum, optimizer="sgd")
    program = replace(program, optimizer=OptimizerSpec(torch.optim.LBFGS, {}))
    plan = plan_in_program_order(program.graph, dict.fromkeys(program.graph.op, "cpu:0"))
    with Executor(program, plan) as executor, pytest.raises(BaechiError, match="closure") as error:
        executor.load(module)
    assert error.value.code == "B602"
