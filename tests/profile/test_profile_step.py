"""Measured memory, times and timelines of placed steps, against closed forms and torch's own account."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.autograd.profiler import profile

from baechi.backends.plans import plan_in_program_order
from baechi.backends.pytorch.executor import Executor
from baechi.frontends.pytorch import capture
from baechi.frontends.pytorch.program import TorchProgram
from baechi.ir.plan import Plan
from baechi.profile.machine import measure_cpu, tuned_environment
from baechi.profile.memory import memory_curves
from baechi.profile.ops import example_inputs, profile_ops
from baechi.profile.step import measure_step, trace_step

MB = 1_000_000


class Chain(nn.Module):
    """Three element-wise ops over one vector, and a bias of the same size."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(MB // 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + self.bias).exp().sum()


def chain() -> tuple[Chain, TorchProgram, torch.Tensor]:
    module, x = Chain(), torch.ones(MB // 4)
    return module, capture(module, (x,), loss="output", optimizer="adam"), x


def place(program: TorchProgram, **device: str) -> Plan:
    """Ops by kind; all others on ``cpu:0``."""
    where = {o.name: device.get(o.kind.removeprefix("aten."), "cpu:0") for o in program.graph.ops}
    return plan_in_program_order(program.graph, where)


def test_peak_memory_of_one_device_in_closed_form() -> None:
    """Input, bias and two Adam states persist. The update holds the gradient and two temporaries.

    Before it, the sum of `x + bias` and its exponential live together; then the exponential times
    the loss's gradient is the gradient of the bias.
    """
    module, program, x = chain()
    with Executor(program, place(program)).load(module) as executor:
        peaks = measure_step(executor, (x,), steps=1).peak_bytes
    assert peaks["cpu:0"] == pytest.approx(7 * MB, abs=1000)


def test_peak_memory_counts_received_copies() -> None:
    """The device of the exponential receives the sum, and gives its result back."""
    module, program, x = chain()
    with Executor(program, place(program, exp="cpu:1")).load(module) as executor:
        peaks = measure_step(executor, (x,), steps=1).peak_bytes
    assert peaks["cpu:1"] == 2 * MB
    assert peaks["cpu:0"] == pytest.approx(7 * MB, abs=1000)


def convolutional() -> tuple[nn.Module, TorchProgram, tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(16 * 144, 5)
    )
    inputs = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])
    loss = nn.functional.cross_entropy
    return module, capture(module, inputs[:1], loss=loss, target=inputs[1], optimizer="momentum"), inputs


def test_peak_memory_equals_the_allocators_own_account() -> None:
    """On one device, every allocation of a whole step as torch's profiler reports it, kernels' own included."""
    module, program, inputs = convolutional()
    plan = plan_in_program_order(program.graph, dict.fromkeys(program.graph.op, "cpu:0"))
    with Executor(program, plan).load(module) as executor:
        peak = measure_step(executor, inputs, steps=1).peak_bytes["cpu:0"]
        runner, values = executor.make_serial(), executor.values(inputs)
        with profile(use_kineto=False, profile_memory=True) as profiler:
            results = runner.run(values)
        live, most = 0, 0
        stack, found = list(profiler.kineto_results.experimental_event_tree()), []
        while stack:
            event = stack.pop()
            stack += event.children
            if event.name == "[memory]":
                found.append((event.start_time_ns, len(found), event.extra_fields.alloc_size))
        for _, _, nbytes in sorted(found):
            live += nbytes
            most = max(most, live)
        assert len(results) == 1
        assert peak == pytest.approx(executor.persistent_bytes()["cpu:0"] + most, rel=0.01)


@pytest.mark.parametrize("devices", [1, 3])
def test_memory_returns_to_what_persists(devices: int) -> None:
    """All that a step makes dies, except its loss of four bytes."""
    module, program, inputs = convolutional()
    where = {g: f"cpu:{i % devices}" for i, g in enumerate(program.graph.groups)}
    plan = plan_in_program_order(program.graph, {o.name: where[o.group or o.name] for o in program.graph.ops})
    with Executor(program, plan).load(module) as executor:
        curves = memory_curves(executor, inputs)
        left = sum(curve[-1][1] - curve[0][1] for curve in curves.values())
        assert left == 4
        assert all(b >= 0 for curve in curves.values() for _, b in curve)
        parameters = sum(p.numel() * 4 for p in module.parameters())
        buffers = sum(b.nbytes for b in module.buffers())
        held = 2 * parameters + buffers + sum(i.nbytes for i in inputs) + 4  # momentum; the loss's gradient
        assert sum(curve[0][1] for curve in curves.values()) == held


def test_a_traced_step_has_every_op_and_transfer_in_order() -> None:
    module, program, inputs = convolutional()
    where = {g: f"cpu:{i % 2}" for i, g in enumerate(program.graph.groups)}
    plan = plan_in_program_order(program.graph, {o.name: where[o.group or o.name] for o in program.graph.ops})
    with Executor(program, plan).load(module) as executor:
        line = trace_step(executor, inputs, memory=True)
    sources = {"parameter", "buffer", "input", "constant", "tangent"}
    ran = [o for o in program.graph.ops if o.kind not in sources]
    assert {s.op for s in line.ops} == {o.name for o in ran}
    assert {(t.tensor, t.source, t.destination) for t in line.transfers} == set(plan.transfers)
    arrived = {(t.tensor, t.destination): t for t in line.transfers}
    for op in ran:
        for tensor in op.inputs:
            maker = program.graph.producer[tensor]
            if maker.name in line.span and plan.device[maker.name] == plan.device[op.name]:
                assert line.span[maker.name].end <= line.span[op.name].start
            elif maker.name in line.span:
                transfer = arrived[tensor, plan.device[op.name]]
                assert line.span[maker.name].end <= transfer.start <= transfer.end <= line.span[op.name].start
    assert line.peak_bytes.keys() == {"cpu:0", "cpu:1"}


def test_measured_steps_train() -> None:
    module, program, inputs = convolutional()
    plan = plan_in_program_order(program.graph, dict.fromkeys(program.graph.op, "cpu:0"))
    with Executor(program, plan).load(module) as executor:
        measured = measure_step(executor, inputs, steps=3, warmup=1, memory=False)
    assert len(measured.all_seconds) == 3
    assert min(measured.all_seconds) <= measured.step_seconds <= max(measured.all_seconds)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9)
    for loss in measured.losses:
        optimizer.zero_grad()
        eager = nn.functional.cross_entropy(module(inputs[0]), inputs[1])
        eager.backward()
        optimizer.step()
        assert loss == pytest.approx(eager.item(), rel=1e-5)


def test_every_op_is_timed() -> None:
    _, program, inputs = convolutional()
    times = profile_ops(program, inputs=inputs, repeats=2)
    sources = {"parameter", "buffer", "input", "constant", "tangent"}
    ran = [o for o in program.graph.ops if o.kind not in sources]
    assert times.by_name.keys() == {o.name for o in ran}
    assert times.by_key.keys() == {o.key for o in ran if o.key}
    assert all(seconds > 0 for seconds in times.by_name.values())
    assert sum(times.by_name.values()) < 2 * times.step_seconds
    assert times.temp_bytes.keys() == times.by_name.keys()
    assert profile_ops(program, repeats=50, budget_seconds=0).steps == 1


def test_temporaries_of_an_update() -> None:
    """Adam divides two copies of the parameter's size; an element-wise op needs nothing beside its result."""
    _, program, x = chain()
    temporaries = profile_ops(program, inputs=(x,), repeats=1).temp_bytes
    kinds = {o.kind: temporaries[o.name] for o in program.graph.ops if o.name in temporaries}
    assert kinds["update"] == pytest.approx(2 * MB, abs=100)
    assert kinds["aten.add"] == kinds["aten.exp"] == kinds["aten.mul"] == 0


def test_made_up_inputs_have_the_captured_shapes() -> None:
    _, program, inputs = convolutional()
    for made, given in zip(example_inputs(program), inputs, strict=True):
        assert (made.shape, made.dtype) == (given.shape, given.dtype)


def test_a_machine_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAECHI_CACHE", str(tmp_path / "deep" / "cache"))
    machine = measure_cpu()
    assert machine == measure_cpu()
    assert [p.name for p in (tmp_path / "deep" / "cache").iterdir()] == ["cpu.json"]
    assert 1e9 < machine.flops_per_second < 1e13
    assert 1e8 < machine.copy_bytes_per_second < 1e12
    assert machine.link(processes=False).seconds(0) == 2 * machine.handoff_seconds
    assert machine.device("cpu:0", 8).flops_per_second == {"float32": machine.flops_per_second}
    (tmp_path / "deep" / "cache" / "cpu.json").write_text("{")
    monkeypatch.setattr("baechi.profile.machine._measure", lambda: machine)
    assert measure_cpu() == machine


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BAECHI_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setattr("baechi.profile.machine._measure", lambda: None)
    monkeypatch.setattr("baechi.profile.machine.asdict", lambda _: {})
    assert measure_cpu() is None


def test_the_tuned_environment_asks_for_what_is_missing_and_imports_no_framework() -> None:
    assert tuned_environment({}).keys() >= {"MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"}
    assert tuned_environment(tuned_environment({})) == {}
    code = "import sys, baechi.profile.machine as m; m.tuned_environment(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout == "False\n"
