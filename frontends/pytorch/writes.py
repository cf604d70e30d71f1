"""What a step writes: new buffers, updated parameters, and which of its results stay."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor as TorchTensor
from torch import fx

from baechi.frontends.pytorch import costs
from baechi.frontends.pytorch.joint import Joint, Role
from baechi.frontends.pytorch.optimizers import update_cost
from baechi.frontends.pytorch.program import OptimizerSpec
from baechi.ir.op import Op, Tensor

__all__ = ["Built", "add_writes"]


@dataclass(eq=False)
class Built:
    """Ops under construction, and the maps of a `TorchProgram`.

    Attributes:
        ops: by name, in program order.
        nodes: fx nodes by op.
        values: fx node by tensor.
        constants: tensor constants by op.
        updates: ``update`` op by parameter name.
        buffer_updates: ``assign`` op by buffer name.
        by_role: op by what its placeholder stands for.
        results: tensors by the fx node that holds them.
        root: by tensor, the tensor whose storage it shares; itself when it has its own.
        made_by: op by tensor.
        storage: root tensor by the micro-batch (None for all) and the address of its fake storage.
        last_random: the last op that drew random numbers.
        costs: of calls, by the node that was traced: what `Op` says of them.
    """

    ops: dict[str, Op] = field(default_factory=dict)
    nodes: dict[str, tuple[fx.Node, ...]] = field(default_factory=dict)
    values: dict[str, fx.Node] = field(default_factory=dict)
    constants: dict[str, TorchTensor] = field(default_factory=dict)
    updates: dict[str, str] = field(default_factory=dict)
    buffer_updates: dict[str, str] = field(default_factory=dict)
    by_role: dict[Role, str] = field(default_factory=dict)
    results: dict[fx.Node, tuple[str, ...]] = field(default_factory=dict)
    root: dict[str, str] = field(default_factory=dict)
    made_by: dict[str, str] = field(default_factory=dict)
    storage: dict[tuple[int | None, int], str] = field(default_factory=dict)
    last_random: str | None = None
    costs: dict[fx.Node, Mapping[str, Any]] = field(default_factory=dict)

    def tensor(self, name: str) -> Tensor:
        """A tensor made so far."""
        return next(t for t in self.ops[self.made_by[name]].outputs if t.name == name)

    def change(self, op: str, **fields: Any) -> None:
        """Replace some fields of an op."""
        self.ops[op] = replace(self.ops[op], **fields)

    def change_tensor(self, name: str, **fields: Any) -> None:
        """Replace some fields of a tensor."""
        op = self.made_by[name]
        outputs = tuple(replace(t, **fields) if t.name == name else t for t in self.ops[op].outputs)
        self.change(op, outputs=outputs)


def add_writes(built: Built, joint: Joint, optimizer: OptimizerSpec | None, *, keep_gradients: bool) -> None:
    """Add ``assign`` and ``update`` ops behind all that reads what they write, and mark what stays."""
    readers = _readers(built)
    for buffer, new in joint.buffers.items():
        _add_assign(built, buffer, built.results[new][0], readers)
    for node in joint.outputs:
        built.change_tensor(built.results[node][0], keep=True)
    for node in joint.input_gradients.values():
        built.change_tensor(built.results[node][0], keep=True)
    for parameter, node in joint.gradients.items():
        (gradient,) = built.results[node]
        if keep_gradients:
            _persist(built, parameter, gradient)
        if optimizer is None or keep_gradients:
            built.change_tensor(gradient, keep=True)
        update = optimizer.for_parameter(parameter) if optimizer is not None else None
        if update is not None:
            _add_update(built, parameter, gradient, update, readers)


def _readers(built: Built) -> dict[str, list[str]]:
    """Ops that read a tensor or a view of it, by the root tensor's name."""
    readers: dict[str, list[str]] = {}
    for op in built.ops.values():
        for root in dict.fromkeys(built.root[t] for t in op.inputs):
            readers.setdefault(root, []).append(op.name)
    return readers


def _add_assign(built: Built, buffer: str, value: str, readers: Mapping[str, Sequence[str]]) -> None:
    op = built.by_role[Role("buffer", buffer)]
    if value == op:
        return
    held = built.tensor(op)
    _add(
        built,
        Op(
            f"assign_{op}",
            "assign",
            (value, op),
            after=tuple(readers.get(op, ())),
            phase="update",
            moved_bytes=2 * held.nbytes,
            arithmetic=held.dtype,
            group=built.ops[op].group,
            key=f"assign({costs.tensor_key(built.values[op].meta['val'])})",
        ),
    )
    built.buffer_updates[buffer] = f"assign_{op}"


def _add_update(
    built: Built, parameter: str, gradient: str, optimizer: OptimizerSpec, readers: Mapping[str, Sequence[str]]
) -> None:
    op = built.by_role[Role("parameter", parameter)]
    value = built.values[op].meta["val"]
    flops, moved, temporary = update_cost(optimizer, value)
    _add(
        built,
        Op(
            f"update_{op}",
            "update",
            (gradient, op),
            after=tuple(readers.get(op, ())),
            phase="update",
            flops=flops,
            moved_bytes=moved,
            temp_bytes=temporary,
            arithmetic=built.tensor(op).dtype,
            group=built.ops[op].group,
            key=f"update.{optimizer.name}({costs.tensor_key(value)})",
        ),
    )
    built.updates[parameter] = f"update_{op}"


def _add(built: Built, op: Op) -> None:
    built.ops[op.name] = op
    built.nodes[op.name] = ()


def _persist(built: Built, parameter: str, gradient: str) -> None:
    """Charge a gradient that outlives the step to its parameter, and not once more where it is made."""
    op = built.by_role[Role("parameter", parameter)]
    nbytes = built.tensor(gradient).nbytes
    built.change(op, persistent_bytes=built.ops[op].persistent_bytes + nbytes)
    root = built.root[gradient]
    built.change_tensor(root, held=built.tensor(root).nbytes)
