"""Captured steps cut into stages: the numbers of the plain model, and what cannot be cut."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baechi.cost import Problem
from baechi.errors import BaechiError
from baechi.frontends.pytorch import TorchProgram, capture
from baechi.ir.cluster import Device
from baechi.placers import make_plan
from baechi.replicas.ravnest.crews import crew_of
from baechi.replicas.ravnest.cut import cut_step
from baechi.replicas.ravnest.flow import check_flow
from baechi.replicas.ravnest.line import Line, line_of, straightened
from baechi.replicas.ravnest.nodes import Node, cluster_of
from baechi.replicas.ravnest.pipeline import run, workers_of

LOSS = nn.functional.cross_entropy
SGD: dict[str, Any] = {"optimizer": "sgd", "optimizer_options": {"lr": 0.1, "momentum": 0.9}}


class Net(nn.Module):
    """A tied weight, a connection that skips, running statistics, and a frozen weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(12, 8)
        self.one, self.two, self.three = (nn.Linear(8, 8) for _ in range(3))
        self.norm = nn.BatchNorm1d(8)
        self.two.bias.requires_grad_(False)
        self.register_buffer("scale", torch.full((8,), 0.5))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens).mean(1)
        y = self.norm(self.one(x).tanh())
        z = self.three(self.two(y).relu() * self.scale) + x
        result: Tensor = z @ self.embed.weight.t()
        return result


def data(count: int) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(1)
    return [(torch.randint(12, (4, 5), generator=g), torch.randint(12, (4,), generator=g)) for _ in range(count)]


def step(net: nn.Module | None = None) -> TorchProgram:
    x, y = data(1)[0]
    return capture(net or Net(), (x,), target=y, loss=LOSS, **SGD)


def nodes(count: int, memory: int = 1 << 20) -> list[Node]:
    return [Node(Device(f"p{i}", memory, flops_per_second={"float32": 1e6}), 1e9) for i in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_stages_have_the_numbers_of_the_plain_model(count: int) -> None:
    program, plain = step(), Net()
    crew = crew_of(program.graph, nodes(count), "contiguous", 0, None)
    line = [share.peer for share in crew.stages]
    cut = cut_step(program, crew.plan.device, line)
    values = {n: t.detach().clone() for n, t in (*Net().named_parameters(), *Net().named_buffers())}
    stages = [cut.stage(i, {n: values[n] for n in cut.names(i)}) for i in range(cut.count)]
    carried = run(workers_of(stages, 1), [((x,), (y,)) for x, y in data(6)])
    optimizer = torch.optim.SGD([p for p in plain.parameters() if p.requires_grad], 0.1, momentum=0.9)
    for (x, y), loss in zip(data(6), carried.losses, strict=True):
        optimizer.zero_grad()
        expected = LOSS(plain(x), y)
        expected.backward()
        optimizer.step()
        assert loss == pytest.approx(expected.item(), rel=1e-5)
    for name, tensor in (*plain.named_parameters(), *plain.named_buffers()):
        torch.testing.assert_close(values[name], tensor.detach(), rtol=1e-4, atol=1e-6, msg=name)
    trained = [name for i in range(cut.count) for name in cut.trained(i)]
    assert sorted(trained) == sorted(n for n, p in plain.named_parameters() if p.requires_grad)
    assert count == 1 or cut.count > 1


@pytest.mark.parametrize("seed", range(6))
def test_a_straightened_placement_reads_only_from_before(seed: int) -> None:
    program = step()
    problem = Problem(program.graph, cluster_of(nodes(3)), None, "throughput")
    groups = torch.randint(3, (len(problem.arrays.group_ptr),), generator=torch.Generator().manual_seed(seed)).numpy()
    found = straightened(problem, groups[problem.arrays.group])
    graph = program.graph
    names = [str(d) for d in found]
    place = {name: i for i, name in enumerate(line_of(graph, names))}
    home = {t.name: place[names[i]] for i, op in enumerate(graph.ops) for t in op.outputs}
    for i, op in enumerate(graph.ops):
        if op.phase == "forward":
            assert all(home[name] <= place[names[i]] for name in op.inputs)
    for group in range(len(problem.arrays.group_ptr) - 1):
        assert len(set(found[problem.arrays.group == group])) == 1, "groups stay together"


def test_a_line_of_stages_fits() -> None:
    program = step()
    alone = crew_of(program.graph, nodes(1), "contiguous", 0, None).stages[0].peak_bytes
    problem = Problem(program.graph, cluster_of(nodes(3, int(0.7 * alone))), None, "throughput")
    plan = make_plan(Line(), problem, 0)
    assert all(plan.predicted.peak_bytes[d.name] <= d.cap for d in problem.cluster.devices)


class Stopped(Net):
    """Gradients do not flow through the mean."""

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens).mean(1)
        return self.one(x) @ self.embed.weight.t() + x.detach().mean()


class Unseen(Net):
    """A part runs without gradients."""

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens).mean(1)
        with torch.no_grad():
            y = self.two(x)
        result: Tensor = (self.one(x) + y) @ self.embed.weight.t()
        return result


def test_a_step_that_stops_gradients_is_refused() -> None:
    check_flow(step())
    for net in (Stopped(), Unseen()):
        with pytest.raises(BaechiError, match="stops gradients") as caught:
            check_flow(step(net))
        assert caught.value.code == "B859"


def test_what_is_no_line_or_no_step_is_refused() -> None:
    program = step()
    home = {op.name: "b" if k % 2 else "a" for k, op in enumerate(program.graph.ops)}
    with pytest.raises(BaechiError, match="take turns"):
        cut_step(program, home, ["a", "b"])
    x, y = data(1)[0]
    bare = capture(Net(), (x,), target=y, loss=LOSS)
    with pytest.raises(BaechiError, match="no step with a loss and an optimiser") as caught:
        cut_step(bare, home, ["a", "b"])
    assert caught.value.code == "B859"
