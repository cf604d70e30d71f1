"""Capture one training step of a `tf.function`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.function_pb2 import FunctionDefLibrary
from tensorflow.core.framework.graph_pb2 import GraphDef

from baechi.errors import BaechiError
from baechi.frontends.tf.control import Bodies
from baechi.frontends.tf.flat import Nodes, data, inline, node_of, prune, resolve, split_joins
from baechi.frontends.tf.graph import Build, Variable, build, handles_of
from baechi.frontends.tf.library import called_functions, check_kinds
from baechi.frontends.tf.naming import Scopes, reachable, unique, variable_paths
from baechi.frontends.tf.program import TensorFlowProgram
from baechi.frontends.tf.provenance import source_of
from baechi.frontends.tf.roles import Roles, roles_of
from baechi.frontends.tf.tidy import Tidied, bypass, merge, ordered, scatter_constants
from baechi.frontends.tf.trace import Traced, trace, unhurried_collector
from baechi.frontends.tf.values import Value, Values, infer, sizes_of
from baechi.ir.graph import Graph

__all__ = ["capture", "capture_traced"]

_WITHOUT_EFFECT = ("NoOp", "Placeholder", "ReadVariableOp")


def capture(
    step: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    name: str = "",
    owners: Sequence[Any] = (),
) -> TensorFlowProgram:
    """Capture one call of a training step as one graph.

    The step is traced once and not run; variables are as they were, those that the optimiser makes when
    it is first used aside. Calls of functions are inlined; a loop or a branch stays one op that costs what its body does.

    Args:
        step: a `tf.function` or a plain function that trains on one batch: forward, `tf.GradientTape`, update.
        args: example tensors, arrays or `tf.TensorSpec`, and whatever else the step takes.
        kwargs: the same, by name.
        name: of the graph; the function's own otherwise.
        owners: models and optimisers whose names are used beside those that the step refers to.

    Raises:
        BaechiError: B710 when the step cannot be traced, B711 when it runs only eagerly, B712 when it creates
            variables, B713 on arguments that are no dense tensors, B714 on a size that depends on the data, B715 when it
            changes Python objects or calls Python code as it runs, B716 on an op that cannot be placed.

    Example:
        >>> weight = tf.Variable([1.0, 2.0])
        >>> program = capture(lambda x: weight.assign_sub(x), (tf.ones(2),), name="step")
        >>> [(op.name, op.kind) for op in program.graph.ops if op.group == "v:Variable"]
        [('Variable', 'parameter'), ('AssignSubVariableOp', 'assign'), ('ReadVariableOp', 'ReadVariableOp')]
    """
    found = (*owners, *reachable(step))
    scopes = Scopes()
    with unhurried_collector():
        with scopes.recorded(found):
            traced = trace(step, args, kwargs or {})
        return capture_traced(traced, name or getattr(step, "__name__", "step"), found, scopes)


def capture_traced(
    traced: Traced, name: str, owners: Sequence[Any], scopes: Scopes, loss: int | None = None
) -> TensorFlowProgram:
    """The program of a traced step.

    Args:
        traced: the step.
        name: of the graph.
        owners: models and optimisers whose names are used.
        scopes: what their layers noted meanwhile.
        loss: position of the loss in the flattened results; by default the only result, if it is a scalar.

    Raises:
        BaechiError: B714 to B716 as `capture`.
    """
    captured = {tensor.op.name: held for held, tensor in traced.graph.captures}
    handles = {n: _held(t, traced) for n, t in captured.items() if t.dtype == tf.resource}
    flat = _flatten(traced)
    values = infer(flat.nodes, flat.library, handles, traced.graph)
    flat.take(merge(flat.nodes, values))
    owned = flat.settle(values)
    found = {id(v): v for v in traced.graph.variables}
    results = [r for r in flat.results if r is not None]
    roles = roles_of(flat.nodes, handles_of(flat.nodes, handles), results)
    scopes.use(traced.graph)
    homes = _homes(flat.nodes, handles, roles, scopes)
    variables = _variables(flat.nodes, captured, handles, found, owners, homes)
    inputs = {t.op.name: i for i, t in enumerate(traced.inputs) if t is not None and t.op.name in flat.nodes}
    b = Build(
        nodes=flat.nodes,
        values=values,
        owned=owned,
        variables=variables,
        inputs=frozenset(inputs),
        results=frozenset(results),
        roles=roles,
        bodies=Bodies(flat.library),
        module=scopes.module,
        source=_sources(traced.graph),
    )
    build(b)
    meta = {"frontend": "tensorflow", "nodes": len(traced.graph.get_operations())}
    graph_def = GraphDef(node=flat.nodes.values(), library=flat.library)
    graph_def.versions.producer = tf.version.GRAPH_DEF_VERSION
    return TensorFlowProgram(
        graph=Graph(tuple(b.ops.values()), name, meta),
        graph_def=graph_def,
        nodes=b.parts,
        tensors=b.tensors,
        inputs=tuple(None if t is None or t.op.name not in inputs else t.op.name for t in traced.inputs),
        specs=traced.specs,
        captures={n: held for n, held in captured.items() if n in flat.nodes},
        variables={n: v.name for n, v in variables.items()},
        trained=_tf_variables(captured, found, variables),
        outputs=tuple(flat.results),
        fixed={i: None for i, r in enumerate(flat.results) if r is None},
        control_outputs=tuple(flat.effects),
        arguments=traced.arguments,
        results=traced.results,
        given=traced.given,
        loss=_loss(flat.results, values) if loss is None else loss,
        owner=(traced.owner, tuple(owners)),
    )


@dataclass(slots=True)
class _Step:
    """A flat graph with what it is for: the results, and the nodes that have an effect."""

    nodes: Nodes
    library: FunctionDefLibrary
    results: list[str | None]
    effects: list[str]

    def take(self, tidied: Tidied) -> None:
        """Go on with other nodes."""
        self.nodes = tidied.nodes
        self.results = [None if r is None else resolve(r, tidied.renamed) for r in self.results]
        self.effects = list(dict.fromkeys(node_of(tidied.renamed.get(f"{e}:0", e)) for e in self.effects))

    def prune(self) -> None:
        """Drop what no result and no effect needs."""
        self.nodes = prune(self.nodes, [*(r for r in self.results if r is not None), *self.effects])

    def settle(self, values: Values) -> Mapping[str, tuple[str, ...]]:
        """The nodes in topological order, each with its own constants."""
        self.prune()
        self.nodes = {name: self.nodes[name] for name in ordered(self.nodes)}
        self.effects = [name for name in self.nodes if name in set(self.effects)]
        self.nodes, owned = scatter_constants(self.nodes, values, [r for r in self.results if r is not None])
        return owned


def _flatten(traced: Traced) -> _Step:
    graph_def = traced.graph.as_graph_def()
    flat = inline(graph_def)
    check_kinds(flat.nodes.values(), graph_def.library)
    results = [None if t is None else resolve(t.name, flat.renamed) for t in traced.outputs]
    effects = [end for op in traced.graph.control_outputs for end in flat.ending(op.name)]
    effects = [e for e in dict.fromkeys(effects) if flat.nodes[e].op not in _WITHOUT_EFFECT]
    step = _Step(flat.nodes, called_functions(graph_def.library, flat.nodes.values()), results, effects)
    renamed = split_joins(step.nodes)
    step.take(Tidied(step.nodes, renamed))
    ends = [node_of(r) for r in results if r is not None and step.nodes[node_of(r)].op == "Identity"]
    step.take(bypass(step.nodes, [*flat.returned, *ends]))
    step.prune()
    for node in step.nodes.values():
        node.device = ""
    return step


def _held(handle: Any, traced: Traced) -> tuple[tf.DType, tf.TensorShape]:
    """What the variable of a handle holds; a resource that is no variable, such as a table, holds nothing."""
    for variable in traced.graph.variables:
        if variable.handle is handle:
            return variable.dtype, variable.shape
    data = getattr(handle, "_handle_data", None)
    if data is None or not data.shape_and_type:
        return tf.float32, tf.TensorShape([0])
    held = data.shape_and_type[0]
    return tf.as_dtype(held.dtype), tf.TensorShape(held.shape)


def _tf_variables(
    captured: Mapping[str, Any], found: Mapping[int, Any], variables: Mapping[str, Variable]
) -> dict[str, Any]:
    by_handle = {id(v.handle): v for v in found.values()}
    return {n: by_handle[id(captured[n])] for n in variables if id(captured[n]) in by_handle}


def _homes(nodes: Nodes, handles: Iterable[str], roles: Roles, scopes: Scopes) -> dict[str, str]:
    """By placeholder, the module that reads a variable first in the forward pass."""
    holder = {name: name for name in handles}
    homes: dict[str, str] = {}
    for name, node in nodes.items():
        touched = [holder[s] for r in data(node) if (s := node_of(r)) in holder]
        if node.op == "ReadVariableOp" and touched:
            holder[name] = touched[0]
        elif roles.phase[name] == "forward" and (path := scopes.layer(name)):
            for placeholder in touched:
                homes.setdefault(placeholder, path)
    return homes


def _variables(
    nodes: Nodes,
    captured: Mapping[str, Any],
    handles: Mapping[str, tuple[tf.DType, tf.TensorShape]],
    found: Mapping[int, Any],
    owners: Sequence[Any],
    homes: Mapping[str, str],
) -> dict[str, Variable]:
    """By placeholder, in the order of their first use."""
    by_handle = {id(v.handle): v for v in found.values()}
    paths = variable_paths(owners)
    known = {n: by_handle.get(id(captured[n])) for n in handles if n in nodes}
    names = {n: paths.get(id(v)) or ("resource" if v is None else v.name.partition(":")[0]) for n, v in known.items()}
    names |= {n: f"{homes[n].replace('.', '/')}/{names[n].rpartition('/')[2]}" for n in names if n in homes}
    result: dict[str, Variable] = {}
    for n, name in unique(names, (m for m in nodes if m not in handles)).items():
        dtype, shape = handles[n]
        value, variable = Value(sizes_of(shape), dtype), known[n]
        if not value.known:
            raise BaechiError("B714", f"variable '{name}' has shape {shape}", help="give it a shape without None")
        module = homes.get(n) or ".".join(name.split("/")[:-1])
        result[n] = Variable(name, value, variable is not None and bool(variable.trainable), module)
    return result


def _sources(graph: Any) -> Callable[[str], str]:
    known = {op.name: op for op in graph.get_operations()}

    def source(name: str) -> str:
        op = known.get(name) or known.get(name.partition("/")[0])
        return "" if op is None else source_of(reversed(list(op.traceback)))

    return source


def _loss(results: Sequence[str | None], values: Values) -> int | None:
    only = [i for i, r in enumerate(results) if r is not None]
    if len(only) != 1:
        return None
    value = values[str(results[only[0]])]
    return only[0] if value.shape == () and value.dtype.is_floating else None
