"""Micro-batches: one traced step as several copies that share weights and add up their gradients.

The copies do what a plain loop does on one device, number for number::

    for x, y in zip(xs.chunk(m), ys.chunk(m)):
        (loss(model(x), y) / m).backward()
    optimizer.step()

A buffer that the step writes, such as a running mean, goes from copy to copy, and random ops draw in
the order of the loop. A draw that wants only the shape of its argument gets an empty tensor instead: it
then waits for the draws before it, and not for the data, so that copies can overlap.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from baechi.frontends.pytorch.joint import Joint, Mark, Role

__all__ = ["unroll"]

aten = torch.ops.aten

_LIKE = {
    aten.bernoulli.p,
    aten.rand_like.default,
    aten.randint_like.default,
    aten.randint_like.low_dtype,
    aten.randn_like.default,
}
"""Draws that look at nothing of their first argument but shape, strides and type."""

Env = dict[fx.Node, fx.Node]
"""New node by old node."""


def unroll(joint: Joint, count: int, whole: Mapping[int, Tensor]) -> Joint:
    """The step of `count` micro-batches.

    Args:
        joint: the step of one micro-batch, with a loss and tidied.
        count: number of copies, at least 2.
        whole: by index of a split input, a fake tensor of the whole batch.

    Returns:
        A step whose inputs are the whole batch, whose result is the mean of the copies' losses and whose
        gradients are those of that mean.
    """
    writer = _Writer(joint, count, whole)
    for k in range(count):
        writer.copy(k)
    return writer.finish()


@dataclass(frozen=True, slots=True)
class _Sum:
    """A sum over the copies so far, and whether nothing else reads its memory: then the next term is added in place."""

    node: fx.Node
    owned: bool


class _Writer:
    """The unrolled graph in the making; old nodes are those of the one copy that was traced."""

    def __init__(self, joint: Joint, count: int, whole: Mapping[int, Tensor]) -> None:
        self.joint, self.count, self.whole = joint, count, whole
        self.graph = fx.Graph()
        self.marks: dict[fx.Node, Mark] = {}
        self.roles: dict[fx.Node, Role] = {}
        self.twin: Env = {}
        self.backward: set[fx.Node] = set()
        self.shared: Env = {}
        self.split: Env = {}
        self.sums: dict[fx.Node, _Sum] = {}
        self.calls = [n for n in joint.module.graph.nodes if n.op == "call_function"]
        for node in joint.module.graph.nodes:
            if node.op in ("placeholder", "get_attr"):
                self._add_source(node)
        buffers = {role.name: n for n, role in joint.roles.items() if role.kind == "buffer"}
        self.written = {buffers[name]: new for name, new in joint.buffers.items()}
        self.buffer = {n: self.shared[n] for n in self.written}
        self._add_single()

    def _add_source(self, node: fx.Node) -> None:
        new = self.shared[node] = self._clone(node, node.name, {})
        role = self.joint.roles.get(node)
        if role is None:
            return
        self.roles[new] = role
        if role.kind == "input" and role.index in self.whole:
            new.meta["val"] = self.whole[role.index]
            self.marks[new] = Mark(group=node.name)
            self.split[node] = new
        elif role.kind == "tangent":
            value = _fresh(node.meta["val"])
            self.shared[node] = self._call(aten.div.Tensor, (new, self.count), f"{node.name}_share", value)

    def _add_single(self) -> None:
        """A view of what all copies share, such as a transposed weight, is made once."""
        own = {*self.split, *self.written}
        for node in self.calls:
            inputs = node.all_input_nodes
            if inputs and all(n in self.shared and n not in own for n in inputs) and _viewed(node) is not None:
                self.shared[node] = self._clone(node, node.name, self.shared)
                self._relate(node, self.shared[node], self.shared)

    def copy(self, k: int) -> None:
        """Add copy `k`, and its loss and gradients to the sums."""
        env = {**self.shared, **self.buffer}
        for node, new in self.split.items():
            value = node.meta["val"]
            start = k * value.shape[0]
            args = (new, 0, start, start + value.shape[0])
            env[node] = self._call(aten.slice.Tensor, args, f"{node.name}_mb{k}", value)
            self.marks[env[node]] = Mark(k, node.name, shares=new)
        for node in self.calls:
            if node.target is aten.native_dropout.default and _is_drawing(node):
                self._add_dropout(node, k, env)
            elif node not in env:
                self._add_copy(node, k, env)
        self.buffer = {n: env[new] for n, new in self.written.items()}
        for end in dict.fromkeys((*self.joint.outputs, *self.joint.gradients.values())):
            self._add_term(end, env, k)

    def _add_copy(self, node: fx.Node, k: int, env: Env) -> None:
        given = env
        if node.target in _LIKE:
            like = node.all_input_nodes[0]
            given = {**env, like: self._empty(node, like.meta["val"], k)}
        env[node] = self._clone(node, f"{node.name}_mb{k}", given)
        self.marks[env[node]] = Mark(k, node.name, like=node)
        self._relate(node, env[node], env)

    def _add_dropout(self, node: fx.Node, k: int, env: Env) -> None:
        """What `native_dropout` does on the CPU, in steps: draw a mask, multiply by it, scale."""
        x, rate, _ = node.args
        dropped, kept = node.meta["val"]
        keep = 1.0 - rate  # type: ignore[operator]
        empty = self._empty(node, kept, k)
        mask = self._call(aten.bernoulli_.float, (empty, keep), f"{node.name}_mask_mb{k}", kept)
        product = self._call(aten.mul.Tensor, (env[x], mask), f"{node.name}_product_mb{k}", dropped)  # type: ignore[index]
        scale = 1.0 / keep if keep else 0.0
        scaled = self._call(aten.mul_.Tensor, (product, scale), f"{node.name}_mb{k}", dropped)
        for new, shares in ((mask, empty), (product, None), (scaled, product)):
            self.marks[new] = Mark(k, node.name, shares=shares)
            self._annotate(node, new)
            self._relate(node, new, env)
        env[node] = scaled
        results: dict[Any, fx.Node] = {0: scaled, 1: mask}
        env |= {user: results[user.args[1]] for user in node.users if user.target is operator.getitem}

    def _empty(self, node: fx.Node, like: Tensor, k: int) -> fx.Node:
        args = (list(like.shape), list(like.stride()))
        kwargs = {"dtype": like.dtype, "device": like.device}
        empty = self._call(aten.empty_strided.default, args, f"{node.name}_empty_mb{k}", _fresh(like), kwargs)
        self.marks[empty] = Mark(k, node.name)
        self._annotate(node, empty)
        return empty

    def _add_term(self, end: fx.Node, env: Env, k: int) -> None:
        """Add the loss or a gradient of copy `k` to its sum."""
        term = env[end]
        if end not in self.sums:
            self.sums[end] = _Sum(term, term is not self.shared.get(end) and self._is_private(end))
            return
        total = self.sums[end]
        target = aten.add_.Tensor if total.owned else aten.add.Tensor
        value = total.node.meta["val"] if total.owned else _fresh(term.meta["val"])
        added = self._call(target, (total.node, term), f"{end.name}_sum_mb{k}", value)
        self.marks[added] = Mark(k, _call_of(end).name, shares=total.node if total.owned else None)
        self._annotate(end, added)
        self._relate(end, added, env)
        self.sums[end] = _Sum(added, owned=True)

    def _is_private(self, node: fx.Node) -> bool:
        """Whether a result lies in memory that a call made, without holes, and that nothing else reads."""
        value = node.meta["val"]
        if node in self.joint.buffers.values() or _fresh(value).stride() != value.stride():
            return False
        readers = 0
        while node.op == "call_function" and sum(u.op != "output" for u in node.users) == readers:
            viewed = _viewed(node)
            if viewed is None or node.target is operator.getitem:
                return viewed is None
            node, readers = viewed, 1
        return False

    def finish(self) -> Joint:
        """The whole step."""
        joint, ends = self.joint, {end: total.node for end, total in self.sums.items()}
        for loss in dict.fromkeys(joint.outputs):
            args, value = (ends[loss], self.count), _fresh(loss.meta["val"])
            ends[loss] = self._call(aten.div.Tensor, args, f"{loss.name}_mean", value)
            self.marks[ends[loss]] = Mark(self.count - 1, _call_of(loss).name)
            self._annotate(loss, ends[loss])
        outputs = [ends[n] for n in joint.outputs]
        gradients = {name: ends[n] for name, n in joint.gradients.items()}
        buffers = {role.name: self.buffer[n] for n, role in joint.roles.items() if n in self.buffer}
        self.graph.output((*outputs, *gradients.values(), *buffers.values()))
        self.graph.eliminate_dead_code()
        module = fx.GraphModule(joint.module, self.graph)
        backward = frozenset(self.backward)
        return Joint(module, self.roles, outputs, gradients, buffers, self.twin, backward, marks=self.marks)

    def _call(
        self, target: Any, args: tuple[Any, ...], name: str, value: Tensor, kwargs: dict[str, Any] | None = None
    ) -> fx.Node:
        node = self.graph.create_node("call_function", target, args, kwargs or {}, name)
        node.meta["val"] = value
        return node

    def _clone(self, node: fx.Node, name: str, env: Mapping[fx.Node, fx.Node]) -> fx.Node:
        args: Any = fx.node.map_arg(node.args, env.__getitem__)
        kwargs: Any = fx.node.map_arg(node.kwargs, env.__getitem__)
        new = self.graph.create_node(node.op, node.target, args, kwargs, name, node.type)
        new.meta = dict(node.meta)
        return new

    def _annotate(self, node: fx.Node, new: fx.Node) -> None:
        """A node of ours comes from where the traced one does."""
        new.meta = {**node.meta, "val": new.meta["val"]}

    def _relate(self, node: fx.Node, new: fx.Node, env: Env) -> None:
        """The new node is of the pass that the traced one is of, and has its twin."""
        if node in self.joint.backward:
            self.backward.add(new)
        twin = self.joint.twin.get(node)
        if twin in env:
            self.twin[new] = env[twin]


def _is_drawing(node: fx.Node) -> bool:
    return bool(node.args[2]) and node.meta["val"][0].numel() > 0


def _viewed(node: fx.Node) -> fx.Node | None:
    """The input in whose memory a result is, or may be."""
    call, value = _call_of(node), node.meta.get("val")
    if not isinstance(value, Tensor):
        return None
    storage = value.untyped_storage()._cdata
    for given in call.all_input_nodes:
        base = given.meta.get("val")
        if isinstance(base, Tensor) and base.untyped_storage()._cdata == storage:
            return given
    schema = getattr(call.target, "_schema", None)
    may_view = schema is not None and any(r.alias_info is not None for r in schema.returns)
    return call.all_input_nodes[0] if may_view and call.all_input_nodes else None


def _call_of(node: fx.Node) -> fx.Node:
    """The call that makes a result, of which it may be one of several."""
    return _call_of(node.all_input_nodes[0]) if node.target is operator.getitem else node


def _fresh(value: Tensor) -> Tensor:
    """A fake tensor like another one, with memory of its own and no holes."""
    with value.fake_mode:  # type: ignore[attr-defined]
        return torch.empty_like(value)
