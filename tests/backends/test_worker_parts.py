"""Worker processes train to the numbers of plain eager training, each with its own share only."""

import copy
import importlib.util
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from baechi.api import timeline_of
from baechi.backends.plans import plan_in_program_order
from baechi.backends.pytorch.workers.emit import make_parts
from baechi.backends.pytorch.workers.part import Layout, Part, pack, unpack
from baechi.backends.pytorch.workers.whole import ranks_of
from baechi.backends.pytorch.workers.worker import Worker
from baechi.errors import BaechiError
from baechi.frontends.pytorch import capture
from baechi.frontends.pytorch.costs import dense_bytes, is_scattered
from baechi.frontends.pytorch.program import TorchProgram
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.plan import Plan
from tests.backends.apart import exit_codes, free_port

_spec = importlib.util.spec_from_file_location("same_numbers", Path(__file__).with_name("test_same_numbers.py"))
assert _spec is not None
assert _spec.loader is not None
models = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(models)

STEPS = 4
PROCESSES = 3


class Unusual(nn.Module):
    """Tensors that are permuted, have holes, are spread out, of whole numbers, truth values or complex."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, padding=1)
        self.table, self.out = nn.Embedding(6, 5), nn.Linear(48, 5)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(1)  # type: ignore[operator]
        h = self.conv(x.to(memory_format=torch.channels_last))
        holes = h[:, ::2, :, 1::2] * 1.5 + h[:, 1::2, :, ::2]
        spread = h.mean((2, 3), keepdim=True).expand(-1, -1, 4, 4)[:, :3]
        mask = spread[..., :4] > holes.mean()
        best = h.flatten(2).amax(2).argmax(1)
        waves = torch.fft.fft(h.flatten(2)[:, :3, :16])
        mixed = torch.where(mask, holes[..., :4, :4], spread) + (waves.imag + waves.real).view(-1, 3, 4, 4)
        return self.out(mixed.transpose(1, 3).flatten(1)) + self.table(best)


class Wide(nn.Module):
    """Weights of a megabyte, so that a transfer takes a while."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(512, 512), nn.Linear(512, 512), nn.Linear(512, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.b(torch.tanh(self.a(x)))))


class Shared(nn.Module):
    """One large tensor that many ops read."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.branches = nn.Linear(6, 8), nn.ModuleList(nn.Linear(8, 5) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.lift(x))
        total: Tensor = sum(branch(h) for branch in self.branches)  # type: ignore[assignment]
        return total


MODELS: dict[str, tuple[type[nn.Module], Callable[[], Tensor]]] = {
    **models.CASES,
    "unusual": (Unusual, lambda: torch.randn(4, 4, 8, 8)),
    "wide": (Wide, lambda: torch.randn(4, 512)),
    "shared": (Shared, lambda: torch.randn(4, 6)),
}


@dataclass(frozen=True)
class Case:
    """A model, an optimiser, and where the ops are: anywhere on so many devices, or weights apart from the rest."""

    model: str
    optimizer: str
    devices: int
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.model}-{self.optimizer}-{self.devices}-{self.seed}"

    def make(self) -> tuple[nn.Module, Tensor]:
        torch.manual_seed(0)
        cls, example = MODELS[self.model]
        return cls(), example()

    def captured(self) -> TorchProgram:
        module, x = self.make()
        cls, options = models.OPTIMIZERS[self.optimizer]
        given = {"optimizer": cls, "optimizer_options": options}
        return capture(module, (x,), loss=nn.functional.cross_entropy, target=models.TARGET, **given)

    def plan(self, graph: Graph) -> Plan:
        cluster = Cluster(tuple(Device(f"cpu:{i}", 1 << 40) for i in range(self.devices)), Link(1e-5, 1e9))
        choose = random.Random(self.seed)
        where = {group: f"cpu:{choose.randrange(self.devices)}" for group in graph.groups}
        device = {op.name: where[op.group or op.name] for op in graph.ops}
        if self.model == "wide":
            device = {op.name: f"cpu:{int(op.kind not in ('parameter', 'update'))}" for op in graph.ops}
        return plan_in_program_order(graph, device, cluster)

    def parts(self) -> tuple[Part, ...]:
        program = self.captured()
        plan = self.plan(program.graph)
        return make_parts(program, plan, timeline_of(program.graph, plan))


CASES = (
    *(Case(model, "momentum", devices) for model in MODELS for devices in (2, 3)),
    *(Case("unusual", "momentum", 3, seed) for seed in (1, 2, 3)),
    *(Case("tied", optimizer, 2) for optimizer in models.OPTIMIZERS if optimizer != "momentum"),
    Case("convolutional", "adamw", 3, 5),
    Case("attention", "adam", 3, 5),
)


def work(rank: int, port: int, jobs: list[tuple[list[bytes], dict[str, Tensor], list[Tensor]]], out: Path) -> None:
    """One of the processes: its part of one job after the other."""
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, PROCESSES, rank == 0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=PROCESSES)
    done = []
    for packed, state, inputs in jobs:
        if rank >= len(packed):
            done.append({})
            continue
        worker = Worker(unpack(packed[rank])).load(
            {n: t.clone() for n, t in state.items()}, {n: t.clone() for n, t in state.items()}
        )
        torch.manual_seed(1)
        losses = [worker.step(*inputs) for _ in range(STEPS)]
        held = {**worker.parameters, **worker.buffers}
        found = [float(loss) for loss in losses if loss is not None]
        done.append({"losses": found, "values": held, "optimizer": worker.optimizer_state})
    torch.save(done, out / f"{rank}.pt")
    dist.barrier()


@pytest.fixture(scope="module")
def parts() -> dict[Case, tuple[Part, ...]]:
    return {case: case.parts() for case in CASES}


@pytest.fixture(scope="module")
def outcomes(
    parts: dict[Case, tuple[Part, ...]], tmp_path_factory: pytest.TempPathFactory
) -> dict[Case, list[dict[str, Any]]]:
    """What each process has after all steps of each case; one set of processes does them all."""
    out = tmp_path_factory.mktemp("outcomes")
    jobs = []
    for case in CASES:
        module, x = case.make()
        state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        plain = {name: t.detach().clone() for name, t in state.items()}
        jobs.append(([pack(part) for part in parts[case]], plain, [x, models.TARGET]))
    port = free_port()
    each = [(rank, port, jobs, out) for rank in range(PROCESSES)]
    codes = exit_codes(work, each, ["baechi.backends.pytorch.workers.worker"])
    assert codes == [0] * PROCESSES
    per_rank = [torch.load(out / f"{rank}.pt") for rank in range(PROCESSES)]
    return {case: [done[i] for done in per_rank if done[i]] for i, case in enumerate(CASES)}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_are_those_of_eager_training(case: Case, outcomes: dict[Case, list[dict[str, Any]]]) -> None:
    module, x = case.make()
    cls, options = models.OPTIMIZERS[case.optimizer]
    eager = copy.deepcopy(module)
    plain = cls(eager.parameters(), **options)
    losses, _ = models.train(eager, x, plain, STEPS)
    ran = outcomes[case]
    told = [done["losses"] for done in ran if done["losses"]]
    assert len(told) == 1
    assert told[0] == pytest.approx(losses, rel=1e-5)
    wanted = {**dict(eager.named_parameters()), **dict(eager.named_buffers())}
    assert sorted(name for done in ran for name in done["values"]) == sorted(wanted)  # each on one worker
    for done in ran:
        for name, value in done["values"].items():
            torch.testing.assert_close(value, wanted[name].detach(), rtol=1e-5, atol=1e-6)
        for name, state in done["optimizer"].items():
            for key, value in plain.state[wanted[name]].items():
                torch.testing.assert_close(state[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", [c for c in CASES if c.model in ("convolutional", "attention")], ids=str)
def test_dropout_draws_from_one_stream(case: Case, outcomes: dict[Case, list[dict[str, Any]]]) -> None:
    """The loss before any update is bitwise that of eager code."""
    module, x = case.make()
    losses, _ = models.train(module, x, torch.optim.SGD(module.parameters(), lr=0.0), 1)
    assert next(done["losses"] for done in outcomes[case] if done["losses"])[0] == losses[0]


def test_random_ops_are_on_several_workers(parts: dict[Case, tuple[Part, ...]]) -> None:
    """So the tests above do pass the stream on."""
    texts = [part.text for part in parts[Case("attention", "adam", 3, 5)]]
    assert sum("PASS_TURN" in text for text in texts) >= 2
    assert sum("AWAIT_TURN" in text for text in texts) >= 2


@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_pack_and_unpack(case: Case, parts: dict[Case, tuple[Part, ...]]) -> None:
    for part in parts[case]:
        other = unpack(pack(part))
        for name in Part.__dataclass_fields__:
            mine, found = getattr(part, name), getattr(other, name)
            if name == "constants":
                assert mine.keys() == found.keys()
                assert all(torch.equal(mine[key], found[key]) for key in mine)
            else:
                assert found == mine


@pytest.mark.parametrize("case", CASES[::4], ids=str)
def test_a_tensor_goes_once_to_each_device(case: Case, parts: dict[Case, tuple[Part, ...]]) -> None:
    """By the text that the workers run: each transfer is sent once, and received once before it is taken."""
    plan = case.plan(case.captured().graph)
    mine = parts[case]
    sent = [
        (wire.tensor, part.rank, wire.peer)
        for part in mine
        for i in map(int, re.findall(r"^    SEND\((\d+)", part.text, re.MULTILINE))
        for wire in [part.wires[i]]
    ]
    ranks = ranks_of(plan)
    assert sorted(sent) == sorted((t, ranks[a], ranks[b]) for t, a, b in plan.transfers)
    for part in mine:
        posted = [int(n) for n in re.findall(r"POST\((\d+)\)", part.text)]
        taken = [int(n) for n in re.findall(r"TAKE\((\d+)\)", part.text)]
        assert sorted(posted) == sorted(taken)
        assert len(set(taken)) == len(taken)
        assert all(part.text.index(f"POST({n})") < part.text.index(f"TAKE({n})") for n in taken)


def test_a_parameter_is_not_overwritten_before_it_has_left(parts: dict[Case, tuple[Part, ...]]) -> None:
    part = parts[Case("wide", "momentum", 2)][0]
    program = Case("wide", "momentum", 2).captured()
    drained = 0
    for name, update in part.updates.items():
        line = part.text.index(f"UPDATES[{update!r}]")
        for i, wire in part.wires.items():
            if wire.tensor == program.graph.op[program.parameters[name]].outputs[0].name:
                assert part.text.index(f"SEND({i},") < part.text.index(f"DRAIN({i})") < line
                drained += 1
    assert drained >= 3


CUBE = torch.arange(24.0).reshape(2, 3, 4)
VIEWS = {
    "whole": CUBE,
    "permuted": CUBE.permute(2, 0, 1),
    "one row": CUBE[1:, 1:2],
    "slice of each row": CUBE[:, 1:3],
    "every other element": CUBE[..., ::2].transpose(0, 1),
    "expanded slice": CUBE[:, :1].expand(-1, 5, -1),
    "expanded scalar": CUBE[0, 0, 0].expand(2, 3),
    "empty": CUBE[1:1],
    "empty expanded": CUBE[:0, :1].expand(-1, 3, -1),
    "conjugate": CUBE.to(torch.complex64).conj(),
}


@pytest.mark.parametrize("name", VIEWS)
def test_what_is_sent_is_as_large_as_the_cost_model_says_and_gives_the_tensor_back(name: str) -> None:
    tensor = VIEWS[name]
    layout = Layout.of(tensor)
    block = layout.block(tensor)
    assert block.is_contiguous()
    assert block.nbytes == dense_bytes(tensor) == layout.numel * tensor.itemsize
    copied = block.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr()
    assert copied == is_scattered(tensor)
    assert torch.equal(layout.tensor(block), tensor)
    assert layout.tensor(block).stride() == layout.stride


def test_layout_of_a_clone() -> None:
    assert Layout.of(torch.ones(3, 1).expand(3, 4)) == Layout((3, 4), (1, 0), torch.float32)
    last = torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert Layout.of(last).stride == last.stride()
    assert Layout.of(torch.ones(2, 0, dtype=torch.bool)).numel == 0


def refused(code: str, act: Callable[[], Any]) -> None:
    with pytest.raises(BaechiError) as error:
        act()
    assert error.value.code == code


def test_what_a_worker_refuses() -> None:
    (part,) = Case("tied", "sgd", 1).parts()
    module, x = Case("tied", "sgd", 1).make()
    weights = dict(module.named_parameters())
    refused("B606", lambda: Worker(part).step(x, models.TARGET))
    refused("B607", lambda: Worker(part).load({}))
    refused("B607", lambda: Worker(part).load({**weights, "mix.bias": torch.ones(3)}))
    worker = Worker(part).load(weights)
    refused("B608", lambda: worker.step(x))
    refused("B608", lambda: worker.step(x[:2], models.TARGET))
    refused("B608", lambda: worker.step(None, models.TARGET))
    refused("B601", lambda: worker.step(x + 100, models.TARGET))
    assert worker.step(x, models.TARGET) is not None


def test_a_step_without_a_loss_is_refused() -> None:
    program = capture(nn.Linear(3, 2), (torch.ones(4, 3),))
    plan = plan_in_program_order(program.graph, dict.fromkeys(program.graph.op, "cpu:0"))
    refused("B606", lambda: make_parts(program, plan, timeline_of(program.graph, plan)))
