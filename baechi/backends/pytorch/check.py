"""Check without any GPU that a placed step would run on GPUs.

Three checks. The structure: each read is local, or a transfer brings it. The source that would run:
the same code, on fake CUDA tensors, which know their device and have no data. The kernels: no op
that exists for the CPU alone.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import resources
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from baechi.backends.pytorch.rewrite import SOURCES, Schedule, schedule
from baechi.backends.pytorch.source import Job, write_serial
from baechi.errors import BaechiError
from baechi.frontends.pytorch.program import TorchProgram
from baechi.ir.plan import Plan

__all__ = ["check_devices", "cpu_only_kernels"]


def check_devices(program: TorchProgram, plan: Plan) -> list[str]:
    """Say what would go wrong if each device of the plan were a GPU; nothing, when the list is empty.

    Example:
        Llama-70B over four devices takes about three seconds and no memory to speak of.
    """
    problems = [*_missing_transfers(program, plan), *_cpu_kernels(program)]
    try:
        actions = schedule(program.graph, plan, results=_results(program))
    except BaechiError as error:
        return problems if _missing(problems) else [*problems, error.what]
    return [*problems, *_run_fake(program, plan, actions)]


def _missing(problems: list[str]) -> bool:
    return any("no transfer" in p for p in problems)


def _results(program: TorchProgram) -> tuple[str, ...]:
    kept = (t for t in program.gradients.values() if program.graph.tensor[t].keep)
    return tuple(dict.fromkeys(t for t in (*program.outputs, *kept) if t is not None))


def _missing_transfers(program: TorchProgram, plan: Plan) -> Iterator[str]:
    sent = {(tensor, destination) for tensor, _, destination in plan.transfers}
    for op in program.graph.ops:
        device = plan.device.get(op.name)
        for tensor in op.inputs:
            source = plan.device.get(program.graph.producer[tensor].name)
            if source != device and (tensor, device) not in sent:
                yield f"op '{op.name}' on '{device}' reads '{tensor}' of '{source}', and no transfer brings it"


def _cpu_kernels(program: TorchProgram) -> Iterator[str]:
    known = cpu_only_kernels()
    for op in program.graph.ops:
        for node in program.nodes.get(op.name, ()):
            if isinstance(node.target, torch._ops.OpOverload) and _kernel_name(node.target) in known:
                yield f"op '{op.name}' is {node.target}, which has no CUDA kernel: capture the step as portable"


def _kernel_name(target: torch._ops.OpOverload) -> str:
    name: str = target._schema.name.removeprefix("aten::")
    return name if target._overloadname == "default" else f"{name}.{target._overloadname}"


@lru_cache(maxsize=1)
def cpu_only_kernels() -> frozenset[str]:
    """ATen ops with a CPU kernel and neither a CUDA nor a generic one, from torch's own list."""
    text = resources.files("torchgen").joinpath("packaged/ATen/native/native_functions.yaml").read_text()
    keys: dict[str, set[str]] = {}
    delegates: dict[str, str] = {}
    for entry in re.split(r"^- func: ", text, flags=re.MULTILINE)[1:]:
        name = entry.split("(", 1)[0]
        dispatch = re.findall(r"^    ([\w, ]+):", entry, re.MULTILINE)
        keys[name] = {key.strip() for line in dispatch for key in line.split(",")}
        if (match := re.search(r"^  structured_delegate: (\S+)", entry, re.MULTILINE)) is not None:
            delegates[name] = match[1]
        if "ufunc_inner_loop" in entry:
            keys[name].add("CUDA")
    for name, delegate in delegates.items():
        keys[name] |= keys.get(delegate, set())
    generic = {n for n, found in keys.items() if any(k == "CUDA" or k.startswith("Composite") for k in found)}
    return frozenset(n for n, found in keys.items() if "CPU" in found and n not in generic)


def _run_fake(program: TorchProgram, plan: Plan, actions: Schedule) -> list[str]:
    """Run the source of the step on fake CUDA tensors; returns what is not where it should be."""
    devices = {name: torch.device("cuda", i) for i, name in enumerate(plan.order)}
    job = Job(program, actions, devices, probe=True)
    problems: list[str] = []

    def leave(i: int, _: None, outputs: tuple[Any, ...]) -> None:
        action = actions.actions[i]
        for out in outputs:
            if isinstance(out, torch.Tensor) and out.device != devices[action.agent.device]:
                problems.append(f"{action} makes a tensor on {out.device}")

    def copy(tensor: torch.Tensor, _: str, destination: str) -> torch.Tensor:
        return _move(tensor, devices[destination])

    updates = {op: _update_check(program, op, problems, devices[plan.device[op]]) for op in program.updates.values()}
    names = {"COPY": copy, "ENTER": lambda i: None, "LEAVE": leave, "UPDATES": updates}
    code = write_serial(job, names)
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        values = _fake_values(program, plan, devices, mode)
        try:
            code.call(values, {}, {})
        except Exception as error:  # noqa: BLE001 - whatever a fake kernel raises is the finding
            i = code.action_of(error)
            where = "the step" if i is None else str(actions.actions[i])
            problems.append(f"{where}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    return problems


def _move(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    moved: torch.Tensor = torch.ops.aten._to_copy.default(tensor, device=device)
    return moved


def _update_check(
    program: TorchProgram, op: str, problems: list[str], device: torch.device
) -> Callable[[torch.Tensor], None]:
    shape = program.values[program.graph.op[op].inputs[1]].meta["val"].shape

    def check(gradient: torch.Tensor) -> None:
        if gradient.device != device or gradient.shape != shape:
            given = f"a gradient of shape {list(gradient.shape)} on {gradient.device}"
            problems.append(f"op '{op}' on {device} gets {given}")

    return check


def _fake_values(
    program: TorchProgram, plan: Plan, devices: dict[str, torch.device], mode: FakeTensorMode
) -> dict[str, dict[str, Any]]:
    values: dict[str, dict[str, Any]] = {name: {} for name in plan.order}
    for op in program.graph.ops:
        if op.kind in SOURCES:
            device = plan.device[op.name]
            for tensor in op.outputs:
                like = program.values[tensor.name].meta["val"]
                with mode:
                    values[device][tensor.name] = torch.empty_strided(
                        like.size(), like.stride(), dtype=like.dtype, device=devices[device]
                    )
    return values
