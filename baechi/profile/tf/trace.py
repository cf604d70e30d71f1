"""Run a step under TensorFlow's own tracing: when each op ran, and what it allocated."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from baechi.backends.tf.rewrite import GIVEN
from baechi.errors import BaechiError
from baechi.frontends.tf.program import TensorFlowProgram

__all__ = ["Buffer", "Event", "Traced", "Tracer"]

_v1 = tf.compat.v1
_runs = itertools.count()


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory behind a result of a node.

    Attributes:
        address: equal for results that share it.
        nbytes: its size.
    """

    address: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Event:
    """One run of a node.

    Attributes:
        node: its name.
        kind: its TensorFlow type, as far as the trace tells.
        device: TensorFlow's full name.
        start, end: of its kernel, in seconds.
        total_seconds: with what the executor did around it.
        outputs: by index.
        temp_bytes: memory that its kernel took and gave back.
    """

    node: str
    kind: str
    device: str
    start: float
    end: float
    total_seconds: float
    outputs: tuple[Buffer | None, ...]
    temp_bytes: int

    @property
    def seconds(self) -> float:
        """What its kernel took."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Traced:
    """One traced step.

    Attributes:
        events: of all nodes, by start.
        graphs: the graph of each device as it was run.
        results: the fetched results, in order.
    """

    events: tuple[Event, ...]
    graphs: tuple[Any, ...]
    results: tuple[Any, ...]


class Tracer:
    """A captured step in a session of its own, with variables of its own.

    Args:
        program: the step.
        graph_def: of `placed_graph`, whose devices are CPU devices of this process.
        leaves: the flattened arguments of each step.
        devices: how many CPU devices there are.
        threads: for ops beside each other, and within one.

    Raises:
        BaechiError: B622 when the step uses a resource that is no variable.
    """

    def __init__(
        self,
        program: TensorFlowProgram,
        graph_def: GraphDef,
        leaves: Sequence[Any],
        *,
        devices: int = 1,
        threads: int = 1,
    ) -> None:
        config = _v1.ConfigProto(
            device_count={"CPU": devices},
            intra_op_parallelism_threads=1,
            inter_op_parallelism_threads=threads,
            use_per_session_threads=True,
        )
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        config.graph_options.optimizer_options.opt_level = _v1.OptimizerOptions.L0
        values = {n: _held(program, n).numpy() for n in program.variables}
        given = {n: _array(leaves[i], program.specs[i]) for i, n in enumerate(program.inputs) if n is not None}
        given |= {n: held.numpy() for n, held in program.captures.items() if n not in values}
        graph = tf.Graph()
        with graph.as_default():
            mapped, initial = _variables(values, graph_def)
            feeds = {n: _v1.placeholder(value.dtype, value.shape) for n, value in given.items()}
            mapped |= {f"{GIVEN}{n}:0": placeholder for n, placeholder in feeds.items()}
            wanted = [ref for ref in program.outputs if ref is not None]
            self._fetches = tf.graph_util.import_graph_def(
                graph_def, input_map=mapped, return_elements=[*wanted, *program.control_outputs], name=""
            )
            self._session = _v1.Session(graph=graph, config=config)
        self._feeds = {placeholder: given[n] for n, placeholder in feeds.items()}
        self._session.run([op for op, _, _ in initial], {holder: value for _, holder, value in initial})

    def run(self) -> Traced:
        """Train one step and trace it."""
        options = _v1.RunOptions(trace_level=_v1.RunOptions.FULL_TRACE, output_partition_graphs=True)
        metadata = _v1.RunMetadata()
        found = self._session.run(self._fetches, self._feeds, options=options, run_metadata=metadata)
        events = sorted(_events(metadata.step_stats), key=lambda e: (e.start, e.node))
        return Traced(tuple(events), tuple(metadata.partition_graphs), tuple(r for r in found if r is not None))

    def close(self) -> None:
        """Forget the variables."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _held(program: TensorFlowProgram, placeholder: str) -> Any:
    """The variable behind a placeholder."""
    variable = program.trained.get(placeholder)
    if variable is None:
        name = program.variables[placeholder]
        raise BaechiError("B622", f"'{name}' is no variable, so the step cannot be traced")
    return variable


def _array(value: Any, spec: Any) -> Any:
    return tf.convert_to_tensor(value, spec.dtype).numpy()


def _variables(values: Mapping[str, Any], graph_def: GraphDef) -> tuple[dict[str, Any], list[tuple[Any, Any, Any]]]:
    """Handles of new variables by what they are mapped from, and how to begin: op, placeholder, value."""
    placed = {node.name: node.device for node in graph_def.node}
    run = next(_runs)
    mapped: dict[str, Any] = {}
    initial = []
    for placeholder, value in values.items():
        with tf.device(placed[placeholder]):
            shared = f"baechi/{run}/{placeholder}"  # one of this name would be shared
            handle = tf.raw_ops.VarHandleOp(dtype=value.dtype, shape=value.shape, shared_name=shared)
            given = _v1.placeholder(value.dtype, value.shape)
            initial.append((tf.raw_ops.AssignVariableOp(resource=handle, value=given), given, value))
        mapped[f"{placeholder}:0"] = handle
    return mapped, initial


def _events(stats: Any) -> Iterator[Event]:
    rows = [(device.device, node) for device in stats.dev_stats for node in device.node_stats]
    first = min((node.all_start_nanos for _, node in rows), default=0)
    for device, node in rows:
        start = node.all_start_nanos - first  # as a float, the time of day would lose them
        yield Event(
            node.node_name,
            _kind(node.timeline_label),
            device,
            (start + node.op_start_rel_nanos) / 1e9,
            (start + node.op_end_rel_nanos) / 1e9,
            node.all_end_rel_nanos / 1e9,
            tuple(_buffers(node.output)),
            int(node.memory_stats.temp_memory_size),
        )


def _kind(label: str) -> str:
    """``name = Type(inputs)`` → ``Type``."""
    return label.partition(" = ")[2].partition("(")[0]


def _buffers(outputs: Any) -> Iterator[Buffer | None]:
    known: Mapping[int, Any] = {o.slot: o.tensor_description.allocation_description for o in outputs}
    for slot in range(max(known, default=-1) + 1):
        held = known.get(slot)
        yield None if held is None or not held.ptr else Buffer(held.ptr, held.allocated_bytes or held.requested_bytes)
