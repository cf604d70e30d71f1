"""One worker: the share of one device, run in this process beside the workers of the others."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from baechi.backends.limits import explain_out_of_memory
from baechi.backends.pytorch.given import given_input, given_weight
from baechi.backends.pytorch.optimizer import Optimizers
from baechi.backends.pytorch.source import find_line
from baechi.backends.pytorch.workers.part import Part
from baechi.backends.pytorch.workers.wires import Lost, Turns, Wires
from baechi.errors import BaechiError
from baechi.frontends.pytorch.program import check_given

__all__ = ["Stamps", "Worker"]


@dataclass(frozen=True, slots=True)
class Stamps:
    """When what of a step happened on one worker, by `time.perf_counter`.

    Attributes:
        begin, end: of the step.
        ops: four for each op that is carried out, in their order: when it began and ended, when what it
            made was under way and what it needed was gone, and how many seconds before it made ready to receive.
        sent: when each transfer from here was sent, by number.
        awaited: when there was room for each transfer to here, by number.
        came: when each transfer to here was seen to have arrived, by number.
        loss: as of `Worker.step`.
    """

    begin: float
    end: float
    ops: tuple[float, ...]
    sent: Mapping[int, float]
    awaited: Mapping[int, float]
    came: Mapping[int, float]
    loss: Tensor | None


class Worker:
    """A part of a placed step with its own parameters, buffers and optimiser state, and no others.

    Args:
        part: what to do.
        groups: process groups by (source, destination) rank; one group for all when empty.
        control: a process group that carries memory of the processor.

    Attributes:
        gradients: by parameter name, those of the last step that are here, when the step keeps them.
    """

    def __init__(self, part: Part, *, groups: Mapping[tuple[int, int], Any] | None = None, control: Any = None) -> None:
        self.part = part
        self.gradients: dict[str, Tensor] = {}
        self.turns = Turns(part, control)
        self._wires = Wires(part.wires, part.rank, part.place, groups or {})
        self._values: dict[str, Tensor] = {}
        self._optimizers: Optimizers | None = None
        self._names: dict[str, Any] = {}
        self._run: Any = None
        self._traced: Any = None
        self._times: list[float] = []
        self._inference = not part.gradients

    def load(self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor] | None = None) -> Self:
        """Take over the parameters and buffers that are here; the optimiser starts afresh.

        Args:
            parameters: by name; others may be among them. Their memory becomes the worker's where
                it is on the right device.
            buffers: the same.

        Raises:
            BaechiError: B607 when one is missing or has another shape.
        """
        part = self.part
        self._values = {}
        for names, given in ((part.parameters, parameters), (part.buffers, buffers or {})):
            for name, op in names.items():
                self._values[op] = given_weight(name, given, part.sources[op]).to(part.place)
        for op, value in part.constants.items():
            self._values[op] = value.to(part.place)
        for op in part.tangents:
            layout = part.sources[op]
            self._values[op] = torch.ones(layout.shape, dtype=layout.dtype, device=part.place)
        updates = {}
        if part.optimizer is not None and part.updates:
            mine = {name: self._values[part.parameters[name]] for name in part.updates}
            self._optimizers = Optimizers(part.optimizer, mine)
            updates = {op: self._optimizers.update(name) for name, op in part.updates.items()}
        self._compile(updates)
        return self

    def step(self, *inputs: Any) -> Tensor | None:
        """Run this worker's share of one step; all workers must do so.

        Args:
            inputs: the flattened ``(args, kwargs)`` and the target; those that are not read here may
                be None.

        Returns:
            The loss on the worker that has it, None on the others.

        Raises:
            BaechiError: B601 when an op fails, B606 when nothing is loaded, B608 when an input is
                not like the captured one, B615 when the cap is passed, B617 when another worker is gone.
        """
        return self._step(self._run, inputs)

    def trace(self, *inputs: Any) -> "Stamps":
        """Run this worker's share of one step as `step` does, and note when everything happens.

        The part must be traced (`make_parts`). All workers must trace the same steps.
        """
        if self._traced is None:
            self._traced = self._function(self.part.traced, f"{self.part.filename} traced")
        self._times.clear()
        self._wires.note()
        begin = time.perf_counter()
        loss = self._step(self._traced, inputs)
        end = time.perf_counter()
        return Stamps(begin, end, tuple(self._times), *self._wires.noted(), loss)

    def _step(self, run: Any, inputs: Sequence[Any]) -> Tensor | None:
        if self._run is None:
            raise BaechiError("B606", "the worker has no parameters yet", help="call load() first")
        self._take(inputs)
        results: dict[str, Tensor] = {}
        mode = torch.inference_mode if self._inference else torch.no_grad
        try:
            with mode():
                self.turns.begin()
                run(self._values, results)
                self._wires.finish()
        except Lost as lost:
            self._wires.clear()
            raise self._gone(lost.peer) from lost
        except Exception as error:  # whatever a kernel raises, with the op that raised it
            self._wires.clear()
            raise self._explain(error) from error
        self.gradients = {name: results[t] for name, t in self.part.gradients.items()}
        found = results.get(self.part.loss)
        return found.clone() if found is not None and found.is_inference() else found

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The parameters that are here, by name; not copies."""
        return {name: self._values[op] for name, op in self.part.parameters.items()}

    @property
    def buffers(self) -> dict[str, Tensor]:
        """The buffers that are here, by name; not copies."""
        return {name: self._values[op] for name, op in self.part.buffers.items()}

    @property
    def optimizer_state(self) -> dict[str, dict[str, Any]]:
        """The optimiser's state of each parameter that is here."""
        return self._optimizers.state_by_name() if self._optimizers is not None else {}

    def load_optimizer_state(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Take such a state over."""
        if self._optimizers is not None:
            self._optimizers.load_by_name(state)

    @property
    def param_groups(self) -> Iterable[dict[str, Any]]:
        """The options of the optimisers that are here, to change the learning rate of a running training."""
        return self._optimizers.groups() if self._optimizers is not None else ()

    def persistent_bytes(self) -> int:
        """Bytes that live through all steps: parameters, buffers, inputs and optimiser state."""
        storages = {v.untyped_storage().data_ptr(): v.untyped_storage().nbytes() for v in self._values.values()}
        return sum(storages.values()) + sum((self._optimizers.nbytes if self._optimizers else {}).values())

    def _take(self, inputs: Sequence[Any]) -> None:
        part = self.part
        if len(inputs) != part.input_count:
            raise BaechiError("B608", f"the step takes {part.input_count} inputs, not {len(inputs)}")
        check_given(part.given, inputs)
        for i, op in part.inputs.items():
            self._values[op] = given_input(op, inputs[i], part.sources[op]).to(part.place)

    def _compile(self, updates: Mapping[str, Any]) -> None:
        wires, turns, part = self._wires, self.turns, self.part
        names = {key: getattr(value, "_op", value) for key, value in part.names.items()}
        names |= {"POST": wires.post, "TAKE": wires.take, "SEND": wires.send, "DRAIN": wires.drain}
        names |= {"AWAIT_TURN": turns.take, "PASS_TURN": turns.give, "UPDATES": updates}
        names |= {"ENTER": self._stamp, "LEAVE": self._leave, "NEXT": self._next}
        self._names, self._traced = names, None
        self._run = self._function(part.text, part.filename)

    def _function(self, text: str, filename: str) -> Any:
        names = dict(self._names)
        exec(compile(text, filename, "exec"), names)  # noqa: S102 - our own source
        return names["run"]

    def _stamp(self) -> None:
        self._times.append(time.perf_counter())

    def _next(self) -> None:
        self._times += (time.perf_counter(), self._wires.posting())

    def _leave(self) -> None:
        now = time.perf_counter()
        self._times.append(now)
        self._wires.look(now)

    def _gone(self, rank: int) -> BaechiError:
        name = next(device for device, other in self.part.ranks.items() if other == rank)
        return BaechiError(
            "B617",
            f"the worker of '{name}' (rank {rank}) is gone",
            help="go on from the last checkpoint with --resume, if the run kept any",
        )

    def _explain(self, error: Exception) -> BaechiError:
        if (known := explain_out_of_memory(error, self.part.device, self.part.cap_bytes)) is not None:
            return known
        i = find_line(error, self.part.filename, self.part.lines)
        where = (
            f"device '{self.part.device}'" if i is None else f"op '{self.part.ops[i]}' on device '{self.part.device}'"
        )
        return BaechiError("B601", f"{where} failed: {type(error).__name__}: {error}")
