"""A step with recomputation and offloading trains to the very numbers of plain torch, in the predicted memory."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from baechi.api import place_graph, plan, timeline_of
from baechi.backends.limits import allocations
from baechi.backends.plans import plan_in_program_order
from baechi.backends.pytorch.check import check_devices
from baechi.backends.pytorch.executor import Executor
from baechi.backends.pytorch.workers.emit import make_parts
from baechi.backends.pytorch.workers.part import pack, unpack
from baechi.backends.pytorch.workers.worker import Worker
from baechi.errors import BaechiError
from baechi.frontends.pytorch import capture, conform
from baechi.frontends.pytorch.host import fetch
from baechi.frontends.pytorch.host import offload as to_host
from baechi.frontends.pytorch.program import TorchProgram
from baechi.ir.cluster import UNLIMITED_BYTES, Cluster, Device
from baechi.ir.graph import Graph
from baechi.ir.op import Op
from baechi.passes import offload, offloadable, recompute, repeatable
from baechi.passes.lighten import Lighten
from baechi.planned import pinned
from baechi.profile.memory import memory_curves

TARGET = torch.tensor([0, 1, 2, 3])


class Blocks(nn.Module):
    """Convolutions with batch norm and dropout, then attention: what keeps most activations."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 if i == 0 else 16, 16, 3, padding=1) for i in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(3))
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.drop, self.out = nn.Dropout2d(0.3), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nn.functional.dropout(torch.relu(norm(conv(x))), 0.2, self.training)
        out: torch.Tensor = self.out(self.layer(self.drop(x).flatten(2).transpose(1, 2)).mean(1))
        return out


def example() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return Blocks(), torch.randn(4, 3, 12, 12)


@functools.cache
def captured() -> TorchProgram:
    module, x = example()
    loss, optimizer = nn.functional.cross_entropy, "adam"
    return capture(module, (x,), loss=loss, target=TARGET, optimizer=optimizer, optimizer_options={"lr": 1e-2})


def everything(graph: Graph) -> Graph:
    return recompute(graph, sorted(repeatable(graph)))


def cheap(graph: Graph) -> Graph:
    heavy = ("aten.mm", "aten.addmm", "aten.bmm", "aten.convolution")
    return recompute(graph, [op.name for op in graph.ops if op.name in repeatable(graph) and op.kind not in heavy])


def away(graph: Graph) -> Graph:
    return offload(graph, offloadable(graph))


def both(graph: Graph) -> Graph:
    third = recompute(graph, [op.name for op in graph.ops if op.name in repeatable(graph)][::3])
    return offload(third, list(offloadable(third))[::2])


WAYS: tuple[Callable[[Graph], Graph], ...] = (everything, cheap, away, both)


def eager() -> tuple[list[float], dict[str, torch.Tensor]]:
    module, x = example()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    torch.manual_seed(1)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(x), TARGET)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, module.state_dict()


def trained(program: TorchProgram, made: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
    module, x = example()
    with Executor(program, made).load(module) as executor:
        torch.manual_seed(1)
        return [executor.step(x, TARGET).item() for _ in range(3)], executor.state_dict()


@pytest.mark.parametrize("devices", [1, 3])
@pytest.mark.parametrize("way", WAYS)
def test_losses_and_weights_are_those_of_torch_bit_for_bit(way: Callable[[Graph], Graph], devices: int) -> None:
    program = conform(captured(), way(captured().graph))
    groups = {name: f"cpu:{i * devices // len(program.graph.groups)}" for i, name in enumerate(program.graph.groups)}
    where = {op.name: groups[op.group or op.name] for op in program.graph.ops}
    losses, state = trained(program, plan_in_program_order(program.graph, where))
    expected, weights = eager()
    assert losses == expected
    assert all(torch.equal(state[name], value) for name, value in weights.items())


@pytest.mark.parametrize("way", WAYS)
def test_the_measured_peak_is_the_predicted_one_and_lower_than_the_plain_one(way: Callable[[Graph], Graph]) -> None:
    program = conform(captured(), way(captured().graph))
    one = Cluster((Device("cpu:0", UNLIMITED_BYTES),))
    plain = place_graph(captured().graph, one, "single").predicted.peak_bytes["cpu:0"]
    made = place_graph(program.graph, one, "single")
    module, x = example()
    with Executor(program, made).load(module) as executor:
        measured = max(nbytes for _, nbytes in memory_curves(executor, [x, TARGET])["cpu:0"])
    predicted = made.predicted.peak_bytes["cpu:0"]
    assert measured == pytest.approx(predicted, rel=0.01)
    assert way is everything or predicted < plain


def test_a_worker_process_can_do_it() -> None:
    """Its part travels as bytes, functions of the host included; what is offloaded is none of its memory."""
    program = conform(captured(), both(captured().graph))
    made = place_graph(program.graph, Cluster((Device("cpu:0", UNLIMITED_BYTES),)), "single")
    (part,) = make_parts(program, made, timeline_of(program.graph, made))
    module, x = example()
    worker = Worker(unpack(pack(part))).load(dict(module.named_parameters()), dict(module.named_buffers()))
    torch.manual_seed(1)
    losses = [worker.step(x, TARGET) for _ in range(3)]
    assert [float(loss) for loss in losses if loss is not None] == eager()[0]
    with allocations() as found:
        worker.step(x, TARGET)
    assert worker.persistent_bytes() + found.peak_bytes == pytest.approx(part.predicted_bytes, rel=0.01)


@pytest.mark.parametrize("way", WAYS)
def test_it_would_run_on_gpus(way: Callable[[Graph], Graph]) -> None:
    program = conform(captured(), way(captured().graph))
    where = {name: f"cuda:{i % 2}" for i, name in enumerate(program.graph.groups)}
    devices = {op.name: where[op.group or op.name] for op in program.graph.ops}
    found = check_devices(program, plan_in_program_order(program.graph, devices))
    assert [p for p in found if "has no CUDA kernel" not in p] == []


def test_the_given_program_is_left_as_it_was() -> None:
    program = captured()
    before = str(program.module.graph)
    conform(program, both(program.graph))
    assert str(program.module.graph) == before
    assert conform(program, program.graph) is program


def test_a_graph_of_another_step_is_refused() -> None:
    other = captured().graph
    stranger = other.with_ops((*other.ops, Op("stranger", "aten.relu", phase="backward")))
    with pytest.raises(BaechiError, match="is not of this step"):
        conform(captured(), stranger)


def test_a_module_in_its_own_loop_recomputes_too(tmp_path: Any) -> None:
    """Forward and backward as parts: what is offloaded or made again waits between two calls."""
    module, x = example()
    plain = copy.deepcopy(module)
    torch.manual_seed(1)
    expected = nn.functional.cross_entropy(plain(x), TARGET)
    expected.backward()
    made = plan(module, (x,), cluster="1x1GiB", recompute="layer")
    assert made.plan.target["recompute"]
    made.save(str(tmp_path / "plan.json"))
    assert pinned(module, (x,), {}, str(tmp_path / "plan.json")).program.graph.digest == made.plan.graph
    placed = made.apply(module)
    torch.manual_seed(1)
    loss = nn.functional.cross_entropy(placed(x), TARGET)
    loss.backward()
    assert loss.item() == expected.item()
    for name, parameter in plain.named_parameters():
        assert torch.equal(module.get_parameter(name).grad, parameter.grad), name


def test_what_was_done_is_read_back_from_the_plan() -> None:
    graph = captured().graph
    again = sorted(repeatable(graph))[:3]
    made = Lighten(tuple(again), tuple(offloadable(recompute(graph, again)))[:1])
    saved = place_graph(made(graph), Cluster((Device("cpu:0", UNLIMITED_BYTES),)), "single")
    assert Lighten.of(saved.target) == made
    assert Lighten.of(saved.target)(graph).digest == saved.graph


@pytest.mark.parametrize("shape", [(), (0, 3), (5, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int64, torch.complex64, torch.bfloat16])
def test_a_tensor_comes_back_from_the_host_as_it_was(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = torch.randn(shape).to(dtype).t() if len(shape) == 2 else torch.randn(shape).to(dtype)
    back = fetch(to_host(tensor), torch.device("cpu"))
    assert torch.equal(back, tensor)
    assert back.stride() == tensor.stride()


def test_memory_of_the_host_is_used_again_when_a_copy_is_gone() -> None:
    first = to_host(torch.ones(3000))
    address = first.data_ptr()
    second = to_host(torch.zeros(3000))
    assert second.data_ptr() != address
    del first
    assert to_host(torch.full((3000,), 2.0)).data_ptr() == address
    assert second.sum() == 0
