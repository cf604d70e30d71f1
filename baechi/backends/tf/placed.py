"""A TensorFlow step that runs as planned."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import tensorflow as tf

from baechi.backends.limits import explain_out_of_memory
from baechi.backends.tf.check import check_partitions
from baechi.backends.tf.devices import device_names
from baechi.backends.tf.rewrite import GIVEN, placed_graph
from baechi.backends.tf.runtime import Options, keep_alive, partitions
from baechi.backends.tf.variables import Copies, Homes, Moved
from baechi.errors import BaechiError
from baechi.frontends.tf.program import TensorFlowProgram
from baechi.ir.plan import Plan

__all__ = ["PlacedStep"]

_UNCHANGED = {"_disable_acd": True, "_OutputsOnOpDevice": True, "_noinline": True}
"""Of the function: its graph orders its effects already, results stay where they are made, and no caller merges it."""


class PlacedStep:
    """A captured training step on the devices of a plan.

    Transfers between devices are TensorFlow's own. What its first call ran on which device is checked
    against the plan: TensorFlow moves ops without a word.

    Args:
        program: the step.
        plan: for its graph.
        devices: TensorFlow's name of each device of the plan; by default logical CPU devices and GPUs of
            this process.
        own: whether the step has variables of its own, which `sync` copies to the user's; else the user's
            variables themselves move to their devices.
        check: whether the first call is checked.

    Raises:
        BaechiError: B603 when the plan is for another graph, B606 and B620 when there is no such device,
            B615 when a device has no memory for its variables, B622 on a resource that cannot be moved.

    Example:
        >>> from baechi.backends.plans import plan_in_program_order
        >>> from baechi.frontends.tf import capture
        >>> weight = tf.Variable([1.0, 2.0])
        >>> program = capture(lambda x: weight.assign_sub(x), (tf.ones(2),))
        >>> plan = plan_in_program_order(program.graph, {op.name: "cpu:0" for op in program.graph.ops})
        >>> with PlacedStep(program, plan) as step:
        ...     _ = step(tf.ones(2))
        >>> weight.numpy().tolist()
        [0.0, 1.0]
    """

    def __init__(
        self,
        program: TensorFlowProgram,
        plan: Plan,
        *,
        devices: Mapping[str, str] | None = None,
        own: bool = True,
        check: bool = True,
    ) -> None:
        self.program, self.plan = program, plan
        self.devices = dict(device_names(plan) if devices is None else devices)
        self.graph_def = placed_graph(program, plan, self.devices)
        used = {device for device, ops in plan.order.items() if ops}
        self._options = Options(rewrites=len(used) <= 1)
        where = {p: self.devices[plan.device[op]] for p, op in program.variables.items()}
        with self._errors_explained():
            self._homes: Homes = (Copies if own else Moved)(program, where)
        self._given = [i for i, name in enumerate(program.inputs) if name is not None]
        self._function = self._make()
        self._unchecked = check
        self._closed = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Train one step on these arguments, and return what the step returns.

        Raises:
            BaechiError: B601 when an op fails, B615 when a device has no more memory, B617 when a worker is
                gone, B606 when the step is closed, B608 and B713 on arguments
                that are not like the captured ones, B621 when TensorFlow ran an op elsewhere than planned.
        """
        return self.program.rebuild(self.step(self.program.flatten(args, kwargs)))

    def step(self, leaves: Sequence[Any]) -> list[Any]:
        """The same on flattened arguments: the tensors among the flattened results."""
        if self._closed:
            raise BaechiError("B606", "the step is closed", help="make a new one")
        values = [self._input(i, leaves[i]) for i in self._given]
        self._homes.enter()
        if not self._unchecked:
            return self._run(values)
        self._unchecked = False
        return self.checked(values)

    def _run(self, values: Sequence[Any]) -> list[Any]:
        with self._errors_explained(), self._options.applied():
            results: list[Any] = self._function(*values)
            return results

    @contextmanager
    def _errors_explained(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            raise self._explained(error) from error

    def _explained(self, error: Any) -> BaechiError:
        """One clear error for what TensorFlow raised while a step ran."""
        text = str(error)
        name = next((name for name, full in self.devices.items() if full in text), None)
        if isinstance(error, tf.errors.ResourceExhaustedError):
            cap = None if name is None else self.plan.cluster.device[name].memory_bytes
            found = explain_out_of_memory(error, name or "a device", cap)
            return found or BaechiError("B615", _first_line(error))
        if isinstance(error, tf.errors.UnavailableError | tf.errors.AbortedError):
            return BaechiError("B617", f"a worker is gone: {_first_line(error)}", help="run the plan again")
        return BaechiError("B601", f"the step failed: {_first_line(error)}")

    def checked(self, values: Sequence[Any]) -> list[Any]:
        """Run one step and compare what was run with the plan.

        Raises:
            BaechiError: B621 when an op ran elsewhere.
        """
        with self._errors_explained(), partitions() as graphs:
            results = self._run(values)
        self.partition_graphs = tuple(graphs)
        names = {full: name for name, full in self.devices.items()}
        check_partitions(graphs, self.graph_def, self.program.op_of, names)
        return results

    def traced(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Become one call in the graph of a `tf.function` under construction, on its symbolic arguments.

        To be prepared before.
        """
        values = self.program.flatten(args, kwargs)
        with self._options.applied():
            return self.program.rebuild(self._function(*(values[i] for i in self._given)))

    def prepare(self) -> None:
        """Move the variables to their devices, and check a step on copies of them and arguments of zeros.

        Raises:
            BaechiError: B621 when an op ran elsewhere.
        """
        if self._unchecked:
            self._unchecked = False
            self._rehearse()
        self._homes.enter()

    def _rehearse(self) -> None:
        specs = [self.program.specs[i] for i in self._given]
        zeros = [tf.zeros(spec.shape, spec.dtype) for spec in specs if spec is not None]
        PlacedStep(self.program, self.plan, devices=self.devices).checked(zeros)

    def _input(self, i: int, value: Any) -> Any:
        spec = self.program.specs[i]
        assert spec is not None  # an input that is read is a tensor
        try:
            tensor = tf.convert_to_tensor(value, spec.dtype)
        except (TypeError, ValueError) as error:
            raise BaechiError("B608", f"argument {i} is no {spec.dtype.name} tensor: {_first_line(error)}") from None
        if not spec.shape.is_compatible_with(tensor.shape):
            raise BaechiError(
                "B608",
                f"argument {i} has shape {tuple(tensor.shape)}, the step was captured with {tuple(spec.shape)}",
                help="capture and place the step for this shape",
            )
        return tensor

    def _make(self) -> Any:
        """The function of the tensors that the step reads."""
        program = self.program
        inputs = [str(program.inputs[i]) for i in self._given]
        specs = [program.specs[i] for i in self._given]
        plain = {n: held for n, held in program.captures.items() if n not in program.variables}
        wanted = [ref for ref in program.outputs if ref is not None]

        def body(*tensors: Any) -> list[Any]:
            graph = tf.compat.v1.get_default_graph()
            given = {f"{GIVEN}{name}:0": tensor for name, tensor in zip(inputs, tensors, strict=True)}
            given |= {f"{GIVEN}{name}:0": graph.capture(held) for name, held in plain.items()}
            given |= {f"{name}:0": graph.capture(handle) for name, handle in self._homes.handles.items()}
            made = tf.graph_util.import_graph_def(
                self.graph_def, input_map=given, return_elements=[*wanted, *program.control_outputs], name=""
            )
            keep_alive(made[len(wanted) :])
            return list(made[: len(wanted)])

        function = tf.function(body, input_signature=specs, autograph=False, experimental_attributes=_UNCHANGED)
        with self._options.applied():
            return function.get_concrete_function()

    def sync(self) -> None:
        """Have the user's variables hold what the step's do."""
        self._homes.sync()

    def close(self) -> None:
        """Give the user's variables the values of the step's, where they were before; no step can follow."""
        if not self._closed:
            self._homes.close()
            self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _first_line(error: BaseException) -> str:
    """What TensorFlow says went wrong, and at which node, without the traces around it."""
    text = str(error) or type(error).__name__
    told = re.search(r"([^\n]+?)\s*\[\[\{\{node ([^}]+)\}\}\]\]", text)
    if told is not None:
        return f"{told[1].strip()} (node '{told[2]}')"
    return text.strip().splitlines()[0]
