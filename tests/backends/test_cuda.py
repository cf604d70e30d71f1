"""The CUDA runner without a GPU: fake tensors, and streams that know what has run before what."""

from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from baechi.backends.plans import plan_in_program_order
from baechi.backends.pytorch.cuda import Streamed
from baechi.backends.pytorch.rewrite import SOURCES, schedule
from baechi.backends.pytorch.source import Job
from baechi.frontends.pytorch import capture
from baechi.frontends.pytorch.program import TorchProgram
from baechi.ir.plan import Plan


class Stream:
    """Knows which actions have run when work that is put on it now starts."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.device, self.done = device, set[Any]()

    def wait_stream(self, other: "Stream") -> None:
        self.done |= other.done

    def wait_event(self, event: "Event") -> None:
        self.done |= event.done


class Event:
    done: frozenset[Any] = frozenset()

    def record(self, stream: Stream) -> None:
        self.done = frozenset(stream.done)

    def synchronize(self) -> None:
        raise AssertionError("the issuing thread must not wait")


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> dict[torch.device, Stream]:
    """The current stream of each device."""
    streams = {torch.device("cuda", i): Stream() for i in range(3)}
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", streams.__getitem__)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda s: s.device and streams.update({s.device: s}))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
    return streams


def placed() -> tuple[TorchProgram, Plan]:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
    program = capture(module, (torch.randn(2, 3, 8, 8),), loss=torch.sum, optimizer="sgd")
    where = {g: f"gpu{i % 3}" for i, g in enumerate(program.graph.groups)}
    plan = plan_in_program_order(program.graph, {o.name: where[o.group or o.name] for o in program.graph.ops})
    return program, plan


def test_every_op_runs_on_its_stream_after_what_it_needs(current: dict[torch.device, Stream]) -> None:
    program, plan = placed()
    graph = program.graph
    devices = {name: torch.device("cuda", int(name[-1])) for name in plan.order}
    found = schedule(graph, plan, results=tuple(t for t in program.outputs if t))
    made = {t.name for a in found.actions if a.op for t in graph.op[a.op].outputs}
    ran = []

    def enter(i: int) -> None:
        action = found.actions[i]
        stream = current[devices[action.agent.device]]
        needs: list[Any] = []
        if action.transfer is not None:
            needs += [action.transfer[0]] if action.transfer[0] in made else []
        else:
            op = graph.op[action.op]
            for tensor in op.inputs:
                source = plan.device[graph.producer[tensor].name]
                if source != action.agent.device:
                    needs.append((tensor, source, action.agent.device))
                elif tensor in made:
                    needs.append(tensor)
            needs += [name for name in op.after if graph.op[name].kind not in SOURCES]
        assert stream.done.issuperset(needs)

    def leave(i: int, _: None, outputs: tuple[Any, ...]) -> None:
        action = found.actions[i]
        device = devices[action.agent.device]
        assert all(t.device == device for t in outputs if isinstance(t, torch.Tensor))
        if action.transfer is not None and action.transfer[0] in made:
            sender = current[devices[action.transfer[1]]]
            assert sender is not current[device]
            assert action.transfer[0] in sender.done
        names = {action.op, *(t.name for t in graph.op[action.op].outputs)} if action.op else {action.transfer}
        current[device].done |= names
        ran.append(i)

    updates = {op: lambda _: None for op in program.updates.values()}
    job = Job(program, found, devices, probe=True, streams=True)
    runner = Streamed(job, updates, names={"ENTER": enter, "LEAVE": leave})
    with FakeTensorMode(allow_non_fake_inputs=True):
        values: dict[str, dict[str, Any]] = {name: {} for name in plan.order}
        for op in graph.ops:
            if op.kind in SOURCES:
                like = program.values[op.name].meta["val"]
                device = plan.device[op.name]
                values[device][op.name] = torch.empty_strided(
                    like.shape, like.stride(), dtype=like.dtype, device=devices[device]
                )
        results = runner.run(values)
    assert ran == list(range(len(found.actions)))
    assert results.keys() == set(program.outputs)
    streams = {id(s) for s in current.values()}
    assert len(streams) == 3


def test_cpu_devices_run_in_the_issuing_thread() -> None:
    """A plan may mix a GPU and the CPU; on CPU devices alone the same code computes real numbers."""
    program, plan = placed()
    devices = dict.fromkeys(plan.order, torch.device("cpu"))
    found = schedule(program.graph, plan, results=tuple(t for t in program.outputs if t))
    updates = {op: lambda _: None for op in program.updates.values()}
    runner = Streamed(Job(program, found, devices, streams=True), updates)
    values: dict[str, dict[str, Any]] = {name: {} for name in plan.order}
    torch.manual_seed(0)
    tensors = {}
    for op in program.graph.ops:
        if op.kind in SOURCES:
            like = program.values[op.name].meta["val"]
            tensors[op.name] = torch.rand(like.shape).to(like.dtype)
            values[plan.device[op.name]][op.name] = tensors[op.name].clone()
    (result,) = runner.run(values).values()
    joint = program.module(*(tensors[n.name] for n in program.module.graph.nodes if n.op == "placeholder"))
    loss = torch.utils._pytree.tree_leaves(joint)
    assert any(torch.equal(result, value) for value in loss if isinstance(value, torch.Tensor))
