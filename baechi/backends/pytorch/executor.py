"""Train a captured step as its plan places it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import nn
from torch.utils import _pytree as pytree

from baechi.backends.pytorch.cuda import Streamed, feed, limit_devices
from baechi.backends.pytorch.given import captured, given_input, given_weight
from baechi.backends.pytorch.optimizer import Optimizers
from baechi.backends.pytorch.rewrite import schedule
from baechi.backends.pytorch.serial import Serial
from baechi.backends.pytorch.source import Job
from baechi.backends.pytorch.threads import Crew, Threaded
from baechi.errors import BaechiError
from baechi.frontends.pytorch.program import TorchProgram
from baechi.ir.plan import Plan

__all__ = ["INLINE_BYTES", "Executor", "inline_bytes", "torch_devices"]

INLINE_BYTES = 32 * 1024
"""Up to this size a copy between CPU threads costs less than waking a lane for it."""


class Executor:
    """A captured step, placed, with parameters, buffers and optimiser state of its own.

    Args:
        program: the step.
        plan: for the program's graph.
        devices: the torch device of each device of the plan; by default a virtual CPU device (a
            thread) for each device with the ``cpu`` backend, and the CUDA device of that name for
            the others.

    Attributes:
        gradients: by parameter name, those of the last step, when the step keeps them: a step without
            an optimiser, or one captured with `keep_gradients`.

    Raises:
        BaechiError: B602 on an optimiser that evaluates the loss itself, B603 to B605 on a plan
            that is not for this program, B606 when there is no such device.
    """

    def __init__(self, program: TorchProgram, plan: Plan, *, devices: Mapping[str, torch.device] | None = None) -> None:
        self.program, self.plan = program, plan
        self.devices = torch_devices(plan, devices)
        graph = program.graph
        kept = [t for t in program.gradients.values() if graph.tensor[t].keep]
        wanted = dict.fromkeys(t for t in (*program.outputs, *kept) if t is not None)
        self.is_cuda = any(d.type != "cpu" for d in self.devices.values())
        if self.is_cuda:
            limit_devices(plan, self.devices)
        self.schedule = schedule(graph, plan, results=tuple(wanted), inline_bytes=inline_bytes(self.devices))
        self.gradients: dict[str, torch.Tensor] = {}
        self._gives_gradients = bool(kept)
        self._values: dict[str, dict[str, Any]] = {}
        self._runner: Threaded | Streamed | None = None
        self._crew: Crew | None = None
        self._optimizers: Optimizers | None = None
        self._closed = False

    def load(
        self,
        parameters: nn.Module | Mapping[str, torch.Tensor],
        buffers: Mapping[str, torch.Tensor] | None = None,
    ) -> Self:
        """Copy parameters and buffers in, from a module or by name; the optimiser starts afresh.

        Raises:
            BaechiError: B607 when one is missing or has another shape.
        """
        self._check_open()
        if isinstance(parameters, nn.Module):
            buffers = dict(parameters.named_buffers())
            parameters = dict(parameters.named_parameters())
        program = self.program
        self._values = {device: {} for device in self.plan.order}
        for names, given in ((program.parameters, parameters), (program.buffers, buffers or {})):
            for name, op in names.items():
                self._put(op, given_weight(name, given, captured(program, op)), copy=True)
        for op, value in program.constants.items():
            self._put(op, value, copy=True)
        for op in program.tangents:
            like = captured(program, op)
            self._put(op, torch.ones(like.shape, dtype=like.dtype), copy=False)
        if program.optimizer is not None:
            updated = {name: self._value(program.parameters[name]) for name in program.updates}
            self._optimizers = Optimizers(program.optimizer, updated)
        self._runner = self.make_runner()
        return self

    def step(self, *inputs: Any) -> Any:
        """Run one step.

        Args:
            inputs: the flattened ``(args, kwargs)`` and the target, like those of the capture.

        Returns:
            The loss; without a loss, what the module returns, and the gradient of each output is ones.

        Raises:
            BaechiError: B601 when an op fails (the executor is closed then), B606 when it is
                closed or not loaded, B608 when an input is not like the captured one.
        """
        self.gradients = {}
        results = self.run(self.runner, self.values(inputs))
        self.gradients = {n: results[t] for n, t in self.program.gradients.items() if t in results}
        outputs = [
            fixed if t is None else _plain(results[t])
            for t, fixed in zip(self.program.outputs, self.program.fixed, strict=True)
        ]
        return outputs[0] if self.program.has_loss else pytree.tree_unflatten(outputs, self.program.output_spec)

    def values(self, inputs: Sequence[Any]) -> dict[str, dict[str, Any]]:
        """What is present at the start of a step on these inputs, by device and tensor."""
        program = self.program
        if len(inputs) != len(program.inputs):
            raise BaechiError("B608", f"the step takes {len(program.inputs)} inputs, not {len(inputs)}")
        program.check_given(inputs)
        for op, value in zip(program.inputs, inputs, strict=True):
            if op is not None:
                self._put(op, given_input(op, value, captured(program, op)), copy=False)
        return {device: dict(values) for device, values in self._values.items()}

    def run(self, runner: Threaded | Streamed, values: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        """Run one step by a runner of `make_runner`; an exception closes the executor."""
        try:
            return runner.run(values)
        except BaseException:
            self.close()
            raise

    @property
    def runner(self) -> "Threaded | Streamed":
        """What runs the steps."""
        self._check_open()
        if self._runner is None:
            raise BaechiError("B606", "the executor has no parameters yet", help="call load() first")
        return self._runner

    def make_runner(self, names: Mapping[str, Any] | None = None) -> "Threaded | Streamed":
        """A runner of the step; with `names` one that calls their ``ENTER`` and ``LEAVE`` around each action."""
        self._check_open()
        job = self._job(probe=names is not None)
        if self.is_cuda:
            return Streamed(job, self._updates(), names=names)
        if self._crew is None:
            self._crew = Crew([f"{a.work} {a.device}" for a in self.schedule.agents])
        return Threaded(job, self._crew, self._updates(), inference=not self._gives_gradients, names=names)

    def make_serial(self, names: Mapping[str, Any] | None = None) -> Serial:
        """A runner of the step in the calling thread."""
        self._check_open()
        return Serial(self._job(probe=names is not None), self._updates(), names=names)

    def _job(self, *, probe: bool) -> Job:
        return Job(self.program, self.schedule, self.devices, probe=probe, streams=self.is_cuda)

    def _updates(self) -> dict[str, Callable[[torch.Tensor], None]]:
        if self._optimizers is None:
            return {}
        return {op: self._optimizers.update(name) for name, op in self.program.updates.items()}

    def persistent_bytes(self) -> dict[str, int]:
        """Bytes that live through all steps, by device: parameters, buffers, inputs and optimiser state."""
        total = {}
        for device, values in self._values.items():
            storages = {v.untyped_storage().data_ptr(): v.untyped_storage().nbytes() for v in values.values()}
            total[device] = sum(storages.values())
        for name, nbytes in (self._optimizers.nbytes if self._optimizers else {}).items():
            total[self.plan.device[self.program.parameters[name]]] += nbytes
        return total

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        """The parameters, by name; not copies."""
        return {name: self._value(op) for name, op in self.program.parameters.items()}

    @property
    def buffers(self) -> dict[str, torch.Tensor]:
        """The buffers, by name; not copies."""
        return {name: self._value(op) for name, op in self.program.buffers.items()}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers under the module's names, tied names included; tensors are copies."""
        program = self.program
        state = {name: self._value(op).detach().clone() for name, op in program.parameters.items()}
        state |= {name: self._value(op).clone() for name, op in program.buffers.items()}
        state |= {other: state[first] for other, first in program.tied.items()}
        return state

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Overwrite parameters and buffers, and leave the optimiser as it is.

        Raises:
            BaechiError: B607 when one is missing or has another shape.
        """
        for name, op in (*self.program.parameters.items(), *self.program.buffers.items()):
            self._value(op).copy_(given_weight(name, state, captured(self.program, op)))

    def optimizer_state_dict(self) -> dict[str, Any]:
        """The optimiser's state as one torch optimiser over ``module.parameters()`` gives it."""
        if self._optimizers is None:
            return {"state": {}, "param_groups": []}
        return self._optimizers.state_dict(tuple(self.program.parameters))

    def load_optimizer_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take such a state over.

        Raises:
            BaechiError: B607 when it is for another number of parameters.
        """
        if self._optimizers is not None:
            self._optimizers.load_state_dict(tuple(self.program.parameters), state)

    @property
    def param_groups(self) -> Iterable[dict[str, Any]]:
        """The options of the optimisers, to change the learning rate of a running training."""
        return self._optimizers.groups() if self._optimizers is not None else ()

    def close(self) -> None:
        """End the threads; parameters and states can still be read."""
        self._closed = True
        self._runner = None
        if self._crew is not None:
            self._crew.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise BaechiError("B606", "the executor is closed", help="make a new one")

    def _put(self, op: str, value: torch.Tensor, *, copy: bool) -> None:
        """Put what a source op stands for on its device."""
        device = self.plan.device[op]
        value = value.detach()
        value = value.to(self.devices[device]).clone() if copy else feed(value, self.devices[device])
        self._values[device][self.program.graph.op[op].outputs[0].name] = value

    def _value(self, op: str) -> torch.Tensor:
        if not self._values:
            raise BaechiError("B606", "the executor has no parameters yet", help="call load() first")
        value: torch.Tensor = self._values[self.plan.device[op]][self.program.graph.op[op].outputs[0].name]
        return value


def torch_devices(plan: Plan, given: Mapping[str, torch.device] | None = None) -> dict[str, torch.device]:
    """The torch device of each device that the plan uses.

    Raises:
        BaechiError: B606 when this machine does not have one.
    """
    found = {}
    for name in plan.order:
        backend = plan.cluster.device[name].backend if name in plan.cluster.device else "cpu"
        device = (given or {}).get(name) or torch.device("cpu" if backend == "cpu" else name)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise BaechiError(
                "B606",
                f"the plan uses '{name}', and this machine has {torch.cuda.device_count()} CUDA devices",
                help="map its devices to virtual ones on the CPU",
            )
        found[name] = device
    return found


def inline_bytes(devices: Mapping[str, torch.device]) -> int:
    """Up to which size a copy is made by the thread of its source."""
    return INLINE_BYTES if all(d.type == "cpu" for d in devices.values()) else 0


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone() if tensor.is_inference() else tensor
