"""From a flat graph to the IR: one op a node, a tensor a result, and what has to share a device."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from baechi.errors import BaechiError
from baechi.frontends.tf import costs
from baechi.frontends.tf.control import WRITES, Bodies, Cost, body_names, is_random
from baechi.frontends.tf.flat import Nodes, control, data, node_of
from baechi.frontends.tf.groups import Groups
from baechi.frontends.tf.roles import Roles
from baechi.frontends.tf.trips import Trips
from baechi.frontends.tf.values import Value, Values
from baechi.ir.op import Op, Tensor

__all__ = ["Build", "Variable", "build", "handles_of"]

_VIEWS = frozenset(("EnsureShape", "ExpandDims", "Identity", "PreventGradient", "Reshape", "Squeeze", "StopGradient"))


@dataclass(frozen=True, slots=True)
class Variable:
    """A captured resource.

    Args:
        name: unique; of its op.
        value: what it holds.
        trainable: whether it is a parameter.
        module: path of the layer that owns it.
    """

    name: str
    value: Value
    trainable: bool = False
    module: str = ""


@dataclass(eq=False, slots=True)
class Build:
    """A graph under construction, and what it is made of.

    Args:
        nodes: the flat graph, in topological order.
        values: what each node makes.
        owned: by node, its own constants.
        variables: by placeholder of a resource.
        inputs: placeholders of arguments.
        results: tensors that the step returns, as ``node:index``.
        roles: phases and twins.
        bodies: functions that were not inlined.
        module: from a node's name to its layer's path.
        source: from a node's name to the user's line.
    """

    nodes: Nodes
    values: Values
    owned: Mapping[str, tuple[str, ...]]
    variables: Mapping[str, Variable]
    inputs: frozenset[str]
    results: frozenset[str]
    roles: Roles
    bodies: Bodies
    module: Callable[[str], str]
    source: Callable[[str], str]
    ops: dict[str, Op] = field(default_factory=dict)
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    op_of: dict[str, str] = field(default_factory=dict)
    tensor_of: dict[str, str] = field(default_factory=dict)
    trips: dict[str, int] = field(default_factory=dict)
    loops: dict[str, Cost] = field(default_factory=dict)

    @property
    def tensors(self) -> dict[str, str]:
        """By tensor of the IR, ``node:index``."""
        return {name: reference for reference, name in self.tensor_of.items()}


def build(b: Build) -> None:
    """Make the ops.

    Raises:
        BaechiError: B714 when the size of a result is not known.
    """
    reads = _first_reads(b)
    for placeholder, variable in b.variables.items():
        _add_variable(b, placeholder, variable, reads.get(placeholder))
    mine = {name for names in b.owned.values() for name in names}
    for name, node in b.nodes.items():
        if name not in b.op_of and name not in mine:
            _add_node(b, name, node)
    _group(b)


def _first_reads(b: Build) -> dict[str, str]:
    """By placeholder, the read that waits for nothing: it makes the value before the step."""
    found: dict[str, str] = {}
    for name, node in b.nodes.items():
        if node.op == "ReadVariableOp" and not control(node):
            found.setdefault(node_of(data(node)[0]), name)
    return found


def _add_variable(b: Build, placeholder: str, variable: Variable, read: str | None) -> None:
    name, nbytes = variable.name, variable.value.nbytes
    tensor = replace(_tensor(name, variable.value, keep=f"{read}:0" in b.results), held=nbytes)
    kind = "parameter" if variable.trainable else "buffer"
    key = f"{kind}({costs.value_key(variable.value)})"
    b.ops[name] = Op(
        name, kind, (), (tensor,), persistent_bytes=nbytes, arithmetic=variable.value.name,
        module=variable.module, key=key,
    )  # fmt: skip
    b.parts[name] = (placeholder,) if read is None else (placeholder, read)
    for node in b.parts[name]:
        b.op_of[node] = name
    if read is not None:
        b.tensor_of[f"{read}:0"] = name


def _tensor(name: str, value: Value, alias_of: str | None = None, keep: bool = False) -> Tensor:
    return Tensor(name, value.nbytes, value.shape or (), value.name, alias_of, keep=keep)


def _add_node(b: Build, name: str, node: NodeDef) -> None:
    if node.op in ("Placeholder", "Const"):
        _add_given(b, name, node)
        return
    inputs = tuple(dict.fromkeys(t for r in data(node) if (t := _read(b, r)) is not None))
    after = dict.fromkeys(b.op_of[c] for c in control(node) if c in b.op_of)
    makers = {b.op_of[node_of(r)] for r in data(node) if node_of(r) in b.op_of}
    phase = b.roles.phase.get(name, "forward")
    twin = b.roles.twin.get(name)
    forward = b.op_of.get(twin) if twin is not None else None
    call = _call(b, name, node)
    cost = _costs(b, name, call, forward)
    outputs = tuple(_result(b, name, node, i, v) for i, v in enumerate(call.makes))
    for i, tensor in enumerate(outputs):
        b.tensor_of[f"{name}:{i}"] = tensor.name
    writes = bool(call.writes) or (not outputs and node.op in b.values.stateful)
    own = forward is not None and forward in b.ops and b.ops[forward].kind not in ("parameter", "buffer")
    b.ops[name] = Op(
        name,
        _kind(b, node, call, phase) if writes else node.op,
        inputs,
        outputs,
        after=tuple(a for a in after if a not in makers and a != name),
        phase=phase,
        forward=forward,
        module=b.ops[forward].module if own and forward else b.module(name),
        source=b.ops[forward].source if own and forward else b.source(name),
        **cost,
    )
    b.parts[name] = (name, *b.owned.get(name, ()))
    for part in b.parts[name]:
        b.op_of[part] = name


def _add_given(b: Build, name: str, node: NodeDef) -> None:
    """What is there before the step begins."""
    value = b.values.made[name][0]
    kind = "input" if name in b.inputs else "constant"
    tensor = replace(_tensor(name, value, keep=f"{name}:0" in b.results), held=value.nbytes)
    key = f"{kind}({costs.value_key(value)})"
    b.ops[name] = Op(name, kind, (), (tensor,), persistent_bytes=value.nbytes, arithmetic=value.name, key=key)
    b.parts[name] = (name,)
    b.op_of[name] = name
    b.tensor_of[f"{name}:0"] = name


def _read(b: Build, reference: str) -> str | None:
    """The tensor that an input is; None for a constant of the reader's own."""
    name = node_of(reference)
    return b.variables[name].name if name in b.variables else b.tensor_of.get(reference)


def _call(b: Build, name: str, node: NodeDef) -> costs.Call:
    reads, constants = [], {}
    for i, reference in enumerate(data(node)):
        source = node_of(reference)
        reads.append(b.variables[source].value if source in b.variables else b.values[reference])
        if source in b.owned.get(name, ()):
            constants[i] = _literal(b.nodes[source], b.values[reference])
    handles = [i for i, r in enumerate(data(node)) if node_of(r) in b.variables]
    writing = node.op.startswith(WRITES) or (bool(body_names(node)) and b.bodies.writes(node))
    return costs.Call(node, reads, b.values.made[name], constants, handles if writing else ())


def _literal(node: NodeDef, value: Value) -> str:
    """A small whole number or a few of them, which may decide how long an op takes."""
    if not value.dtype.is_integer or value.elements > 8:
        return ""
    numbers = tf.make_ndarray(node.attr["value"].tensor).flatten().tolist()
    return "(" + ",".join(map(str, numbers)) + ")"


def _result(b: Build, name: str, node: NodeDef, index: int, value: Value) -> Tensor:
    if not value.known and value.dtype not in (tf.resource, tf.variant):
        shape = (
            "unknown" if value.shape is None else str([n if n >= 0 else None for n in value.shape]).replace("None", "?")
        )
        line = b.source(name)
        raise BaechiError(
            "B714",
            f"{line + ': ' if line else ''}the shape of a result of {node.op} '{name}' depends on the data ({shape})",
            help="a step is placed for fixed sizes: use masks or tf.where with three arguments, or set_shape()",
        )
    tensor = name if index == 0 else f"{name}:{index}"
    listed = b.loops[name].listed_bytes if name in b.loops and value.dtype == tf.variant else 0
    if listed:  # what a loop keeps for its gradient
        return Tensor(tensor, listed // sum(v.dtype == tf.variant for v in b.values.made[name]), (), value.name)
    alias = _read(b, data(node)[0]) if node.op in _VIEWS or node.op == "ReadVariableOp" else None
    return _tensor(tensor, value, alias, keep=f"{name}:{index}" in b.results)


def _kind(b: Build, node: NodeDef, call: costs.Call, phase: str) -> str:
    """Writes are called as on the PyTorch side; the node's own type is in the op's key."""
    trained = any(b.variables[node_of(data(node)[i])].trainable for i in call.writes)
    return "update" if trained and phase == "update" and not body_names(node) else "assign"


def _costs(b: Build, name: str, call: costs.Call, forward: str | None) -> Mapping[str, Any]:
    common = {"arithmetic": costs.arithmetic(call), "key": costs.call_key(call)}
    if not body_names(call.node):
        return {
            "flops": costs.flops(call),
            "moved_bytes": costs.moved_bytes(call),
            "temp_bytes": costs.temp_bytes(call),
            "draws": is_random(call.node.op, b.values),
            **common,
        }
    trips = Trips(b.bodies.library, b.nodes, b.trips).of(call.node)
    found = b.bodies.cost(call.node, call.reads, trips)
    before = b.loops.get(forward or "")
    if before is not None:  # sizes in lists are not known, so the gradient of a loop looks cheaper than it is
        found = found._replace(
            flops=max(found.flops, 2 * before.flops), moved_bytes=max(found.moved_bytes, 2 * before.moved_bytes)
        )
    b.loops[name] = found
    common["key"] = f"{common['key']}x{trips}:{found.flops:.0f}:{found.moved_bytes}"
    return {
        "flops": found.flops,
        "moved_bytes": found.moved_bytes,
        "temp_bytes": found.temp_bytes,
        "draws": found.draws,
        **common,
    }


def _group(b: Build) -> None:
    """What touches one variable shares its device, and so does what only updates it."""
    groups = Groups(b.ops)
    for name, node in b.nodes.items():
        touched = [b.variables[h].name for r in data(node) if (h := node_of(r)) in b.variables]
        wanted = [c.decode().removeprefix("loc:@") for c in node.attr["_class"].list.s] if "_class" in node.attr else []
        groups.join([b.op_of[name], *touched, *(b.op_of[w] for w in wanted if w in b.op_of)])
    groups.join_updates()
    labels = groups.labels({v.name for v in b.variables.values()})
    for member, label in labels.items():
        op, owner = b.ops[member], b.ops.get(label.removeprefix("v:"))
        slot = op.phase == "update" or (op.kind == "buffer" and owner is not None and owner.kind == "parameter")
        module = owner.module if owner is not None and slot else op.module
        b.ops[member] = replace(op, group=label, module=module)


def handles_of(nodes: Nodes, placeholders: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """By node, the resources that it touches."""
    known = set(placeholders)
    touched = {n: tuple(h for r in data(node) if (h := node_of(r)) in known) for n, node in nodes.items()}
    return {n: handles for n, handles in touched.items() if handles}
