"""The CUDA runner on fake GPUs (see conftest.py): the order of its work, its memory, and its source."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from baechi.backends.plans import plan_in_program_order
from baechi.backends.pytorch import cuda, streams
from baechi.backends.pytorch.cuda import Streamed, feed, limit_devices
from baechi.backends.pytorch.executor import Executor
from baechi.backends.pytorch.rewrite import SOURCES, schedule
from baechi.backends.pytorch.source import Job, write_serial
from baechi.backends.pytorch.split import split
from baechi.errors import BaechiError
from baechi.frontends.pytorch import capture
from baechi.frontends.pytorch.program import TorchProgram
from baechi.ir.cluster import Cluster, Device
from baechi.ir.plan import Plan

GOLDEN = Path(__file__).parents[1] / "golden" / "cuda.txt"
Machine = Any


class Net(nn.Module):
    """Convolution with buffers, dropout, a weight used twice, and more than one path."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(3, 4, 3)
        self.mix, self.out = nn.Linear(36, 36), nn.Linear(36, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.norm(self.a(x))) + nn.functional.dropout(self.b(x), 0.2, self.training)
        h = h.sum(1).flatten(1)
        return self.out(nn.functional.dropout(torch.tanh(self.mix(self.mix(h))), 0.5, self.training))


PLACES = {
    "three GPUs": ("cuda:0", "cuda:1", "cuda:2"),
    "one GPU": ("cuda:1", "cuda:1", "cuda:1"),
    "two on one": ("cuda:2", "cuda:0", "cuda:2"),
    "one is the CPU": ("cuda:0", "cpu", "cuda:1"),
}


@pytest.fixture(scope="module")
def program() -> TorchProgram:
    options = {"lr": 0.1, "momentum": 0.9}
    return capture(Net(), (torch.randn(2, 3, 8, 8),), loss=torch.sum, optimizer="sgd", optimizer_options=options)


@pytest.fixture(scope="module")
def without_loss() -> TorchProgram:
    return capture(Net(), (torch.randn(2, 3, 8, 8),), loss=None)


def spread(program: TorchProgram, seed: int) -> Plan:
    choose = random.Random(seed)
    where = {g: f"gpu{choose.randrange(3)}" for g in program.graph.groups}
    return plan_in_program_order(program.graph, {o.name: where[o.group or o.name] for o in program.graph.ops})


def devices_of(plan: Plan, place: str) -> dict[str, torch.device]:
    return {name: torch.device(PLACES[place][int(name[-1])]) for name in plan.order}


def train(machine: Machine, program: TorchProgram, place: str, seed: int = 0, steps: int = 3) -> None:
    """Steps as a user runs them, who reads the loss on the current stream and lets it go."""
    plan = spread(program, seed)
    net = Net()
    net.norm.num_batches_tracked = torch.ones((), dtype=torch.long)  # the fake of a constant computes for real
    executor = Executor(program, plan, devices=devices_of(plan, place)).load(net)
    (x,) = (op for op in program.inputs if op is not None)
    machine.waits.clear()
    for _ in range(steps):
        given = torch.empty(2, 3, 8, 8, device=executor.devices[plan.device[x]])
        loss = executor.step(torch.ops.aten.fill_.Scalar(given, 1.0), *(None for _ in program.inputs[1:]))
        torch.ops.aten.mul.Scalar(loss, 2.0)


def forward_and_backward(machine: Machine, program: TorchProgram, place: str, seed: int = 0, steps: int = 3) -> None:
    """The parts of a placed module, and an optimiser of the user's on the current stream."""
    plan = spread(program, seed)
    devices, parts = devices_of(plan, place), split(program, plan, inline_bytes=0)
    forward, backward = (Streamed(Job(program, p, devices, streams=True), {}) for p in (parts.forward, parts.backward))
    held = sources(program, plan, devices, "parameter", "buffer", "constant")
    machine.waits.clear()
    for _ in range(steps):
        given = sources(program, plan, devices, "input")
        values = {name: {**held[name], **given[name]} for name in plan.order}
        kept = {d: {t: values[d][t] for t in ts if t in values[d]} for d, ts in parts.backward.present.items()}
        forward.run(values, kept)
        for device, tangents in sources(program, plan, devices, "tangent").items():
            kept[device] |= tangents
        del values, given
        results = backward.run(kept)
        for parameter, gradient in program.gradients.items():
            op = program.parameters[parameter]
            held_there = held[plan.device[op]][op]
            moved = torch.ops.aten._to_copy.default(results[gradient], device=held_there.device)
            torch.ops.aten.add_.Tensor(held_there, moved)


def sources(
    program: TorchProgram, plan: Plan, devices: Mapping[str, torch.device], *kinds: str
) -> dict[str, dict[str, Any]]:
    """What is there before a step, written on the current streams."""
    found: dict[str, dict[str, Any]] = {name: {} for name in plan.order}
    for op in program.graph.ops:
        if op.kind in kinds:
            like, name = program.values[op.name].meta["val"], plan.device[op.name]
            value = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=devices[name])
            found[name][op.name] = torch.ops.aten.fill_.Scalar(value, 1)
    return found


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("seed", range(4))
def test_steps_run_in_order_and_no_memory_is_reused_early(
    machine: Machine, program: TorchProgram, place: str, seed: int
) -> None:
    train(machine, program, place, seed)
    assert machine.races == []
    assert bool(machine.waits) == (place == "one is the CPU")
    assert machine.device == 0


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("seed", range(4))
def test_forward_and_backward_parts_run_in_order(
    machine: Machine, without_loss: TorchProgram, place: str, seed: int
) -> None:
    forward_and_backward(machine, without_loss, place, seed)
    assert machine.races == []
    assert bool(machine.waits) == (place == "one is the CPU")


def nothing(*_: Any) -> None:
    return None


def drop_recording(machine: Machine, patch: pytest.MonkeyPatch, which: int) -> None:
    """Tensors are not recorded for one kind of stream."""
    record, kinds = torch.Tensor.record_stream, ("compute", "lane", "sender")

    def partly(tensor: torch.Tensor, stream: Any) -> None:
        if all(stream is not getattr(s, kinds[which]) for s in streams._STREAMS.values()):
            record(tensor, stream)

    patch.setattr(torch.Tensor, "record_stream", partly)


def no_senders(runner: Streamed) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(s for s in runner._agents if s is not None))


BROKEN: dict[str, tuple[str, Callable[[Machine, pytest.MonkeyPatch], None]]] = {
    "no waits": ("three GPUs", lambda _, patch: patch.setattr(Streamed, "_wait", nothing)),
    "no events": ("three GPUs", lambda _, patch: patch.setattr(Streamed, "_mark", nothing)),
    "steps start at once": ("three GPUs", lambda _, patch: patch.setattr(Streamed, "_begin", nothing)),
    "steps are not waited for": ("three GPUs", lambda _, patch: patch.setattr(Streamed, "_end", nothing)),
    "arrived tensors are not held": ("three GPUs", lambda m, patch: drop_recording(m, patch, 0)),
    "sent tensors are not held": ("three GPUs", lambda m, patch: drop_recording(m, patch, 2)),
    "strided tensors are gathered at once": (
        "three GPUs",
        lambda _, patch: patch.setattr(torch.Tensor, "is_contiguous", lambda *_, **__: True),
    ),
    "senders start at once": ("one is the CPU", lambda _, patch: patch.setattr(Streamed, "_used_streams", no_senders)),
    "copied tensors are not held": ("one GPU", lambda m, patch: drop_recording(m, patch, 1)),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_runner_is_found_out(
    machine: Machine, program: TorchProgram, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    place, damage = BROKEN[broken]
    damage(machine, monkeypatch)
    assert any(train(machine, program, place, seed) or machine.races for seed in range(8))


def test_each_single_wait_is_needed(machine: Machine, program: TorchProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for those of and for views, which run no kernel."""
    graph, plan = program.graph, spread(program, 0)
    actions = schedule(graph, plan).actions

    def views(i: int) -> bool:
        outputs = graph.op[actions[i].op].outputs if actions[i].op else ()
        return any(t.alias_of is not None for t in outputs)

    readers: dict[int, list[int]] = {}
    for i, action in enumerate(actions):
        for j in action.waits:
            readers.setdefault(j, []).append(i)
    needed = [j for j, found in readers.items() if not views(j) and not all(map(views, found))]
    wait = Streamed._wait
    missed = []
    for dropped in needed[::4]:
        monkeypatch.setattr(Streamed, "_wait", lambda self, i, dropped=dropped: i == dropped or wait(self, i))
        machine.races.clear()
        train(machine, program, "three GPUs", steps=1)
        if not machine.races:
            missed.append(str(actions[dropped]))
    assert missed == []
    assert len(needed) > 50


def test_random_numbers_come_from_one_generator(machine: Machine, program: TorchProgram) -> None:
    own = [generator.state for generator in machine.generators]
    machine.device = 1
    train(machine, program, "three GPUs", steps=2)
    assert own[0] == own[2] == []
    assert len(own[1]) == 4  # two dropouts in each step
    assert [generator.state for generator in machine.generators] == own
    assert machine.device == 1


def test_the_current_streams_are_as_before_even_after_an_error(
    machine: Machine, program: TorchProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list(machine.current)
    monkeypatch.setattr(cuda, "_send", lambda *_: 1 / 0)
    with pytest.raises(BaechiError, match=r"B601.*copy of .*ZeroDivisionError"):
        train(machine, program, "three GPUs")
    assert machine.current == before
    assert machine.device == 0


def test_streams_are_shared_by_all_plans_and_differ_by_device(machine: Machine) -> None:
    gpu = torch.device("cuda", 0)
    first = streams.assign_streams({"a": gpu, "b": gpu, "c": torch.device("cuda", 1), "d": torch.device("cpu")})
    again = streams.assign_streams({"x": gpu, "y": gpu})
    assert again == {"x": first["a"], "y": first["b"]}
    used = [s for name in first for s in (first[name].compute, first[name].lane, first[name].sender)]
    assert len({id(s) for s in used}) == 9
    assert first.keys() == {"a", "b", "c"}


def test_inputs_of_the_host_wait_for_no_step(machine: Machine) -> None:
    gpu = torch.device("cuda", 1)
    before = machine.current[1].work()
    moved = feed(torch.ones(3), gpu)
    assert moved.device == gpu
    assert not machine.host.knows(before)  # it has waited for the copy, not for what else the GPU does
    machine.kernel("read", machine.stream(gpu), [moved], [])
    assert machine.races == []
    assert feed(moved, gpu) is moved


def test_the_process_is_limited_to_the_caps_of_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: dict[torch.device, float] = {}

    class Properties:
        total_memory = 1000

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10 * device.index)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda f, d: set_to.update({d: f}))
    module = capture(nn.Linear(2, 2), (torch.ones(1, 2),), loss=torch.sum, optimizer="sgd")
    caps = {"a": 200, "b": 300, "c": 400, "host": 50}
    cluster = Cluster(tuple(Device(name, nbytes) for name, nbytes in caps.items()))
    plan = plan_in_program_order(module.graph, dict.fromkeys((o.name for o in module.graph.ops), "a"), cluster)
    first, second = torch.device("cuda", 0), torch.device("cuda", 1)
    devices = {"a": first, "b": first, "c": second, "host": torch.device("cpu")}
    assert limit_devices(plan, devices) == {first: 500, second: 410}
    assert set_to == pytest.approx({first: 0.5, second: 0.41})


def test_cpu_devices_run_in_the_issuing_thread(program: TorchProgram) -> None:
    """On CPU devices alone the same code computes real numbers."""
    plan = spread(program, 0)
    devices = dict.fromkeys(plan.order, torch.device("cpu"))
    found = schedule(program.graph, plan, results=tuple(t for t in program.outputs if t))
    updates = dict.fromkeys(program.updates.values(), nothing)
    runner = Streamed(Job(program, found, devices, streams=True), updates)
    values: dict[str, dict[str, Any]] = {name: {} for name in plan.order}
    tensors = {}
    for op in program.graph.ops:
        if op.kind in SOURCES:
            like = program.values[op.name].meta["val"]
            tensors[op.name] = torch.rand(like.shape).to(like.dtype)
            values[plan.device[op.name]][op.name] = tensors[op.name].clone()
    torch.manual_seed(0)
    (result,) = runner.run(values).values()
    torch.manual_seed(0)
    joint = program.module(*(tensors[n.name] for n in program.module.graph.nodes if n.op == "placeholder"))
    loss = pytree.tree_leaves(joint)
    assert any(torch.equal(result, value) for value in loss if isinstance(value, torch.Tensor))


def golden() -> str:
    """The source of a step of two layers on two GPUs."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 1, bias=False))
    step = capture(module, (torch.ones(4, 2),), loss=torch.sum, optimizer="sgd")
    parts = {"0": "cuda:0", "1": "cuda:1"}
    where = {o.name: parts[next((c for c in o.group or o.module or "0" if c in parts), "0")] for o in step.graph.ops}
    plan = plan_in_program_order(step.graph, where)
    found = schedule(step.graph, plan, results=tuple(t for t in step.outputs if t))
    devices = {name: torch.device(name) for name in plan.order}
    agents = "".join(f"# USE({i}): {agent.work} of {agent.device}\n" for i, agent in enumerate(found.agents))
    code = write_serial(Job(step, found, devices, streams=True), {})
    return f"# python tests/backends/test_cuda.py > tests/golden/cuda.txt\n{agents}{code.text}\n"


def test_the_source_of_a_step_is_the_golden_one() -> None:
    assert golden() == GOLDEN.read_text()


if __name__ == "__main__":
    print(golden(), end="")
