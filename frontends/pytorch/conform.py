"""A captured step that carries out its graph after recomputation and offloading were added to it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from baechi.errors import BaechiError
from baechi.frontends.pytorch import host
from baechi.frontends.pytorch.program import TorchProgram
from baechi.ir.graph import Graph
from baechi.ir.op import Op
from baechi.passes.recompute import template

__all__ = ["conform"]

Nodes = dict[fx.Node, fx.Node]


def conform(program: TorchProgram, graph: Graph) -> TorchProgram:
    """The program whose fx graph does what the ops of `graph` say.

    A copy of an op calls what the op calls, on the tensors that the copy reads; so does an op that now
    reads other tensors. ``offload`` and ``fetch`` call `baechi.frontends.pytorch.host`. The given program
    stays as it is.

    Args:
        program: a captured step.
        graph: made from its graph by `recompute` and `offload`.

    Raises:
        BaechiError: B603 when the graph has an op that the program knows nothing of.
    """
    if graph is program.graph:
        return program
    writer = _Writer(program, graph)
    module = writer.module()
    return replace(program, graph=graph, module=module, nodes=writer.nodes, values=writer.values)


class _Writer:
    """A new fx graph, written op by op."""

    def __init__(self, program: TorchProgram, graph: Graph) -> None:
        self.program, self.graph = program, graph
        self.fx = fx.Graph()
        self.made: dict[str, Nodes] = {}
        self.nodes: dict[str, tuple[fx.Node, ...]] = {}
        self.values: dict[str, fx.Node] = {}
        self.moved: Nodes = {}  # what the ops that keep their names are now

    def module(self) -> fx.GraphModule:
        """Write everything; fills `nodes` and `values`."""
        for node in self.program.module.graph.nodes:
            if node.op in ("placeholder", "get_attr"):
                self.moved[node] = self.fx.node_copy(node)
        for op in (self.graph.ops[i] for i in self.graph.order):
            self._write(op)
        (end,) = (node for node in self.program.module.graph.nodes if node.op == "output")
        self.fx.output(fx.node.map_arg(end.args[0], self.moved.__getitem__))
        self.fx.lint()
        return fx.GraphModule(self.program.module, self.fx)

    def _write(self, op: Op) -> None:
        if op.kind in ("offload", "fetch"):
            self._carry(op)
            return
        original = self._original(op)
        known = self.program.nodes[original.name]
        if not known:
            self.nodes[op.name] = ()
            self.values |= {t.name: self.moved[self.program.values[t.name]] for t in op.outputs}
            return
        inputs = self._inputs(original, op)
        made: Nodes = {}
        for node in known:
            name = node.name if op.name == original.name else f"{node.name}_{op.name.rpartition('.')[2]}"
            made[node] = self._copy(node, name, lambda n: made.get(n) or inputs.get(n) or self.moved[n])
        if op.name in self.program.nodes:
            self.moved |= made
        self.made[op.name] = made
        self.nodes[op.name] = tuple(made.values())
        self.values |= self._results(original, op, made)

    def _original(self, op: Op) -> Op:
        """The op of the program whose calls this one makes."""
        known = self.program.graph.op
        if op.name in known:
            return known[op.name]
        if op.forward not in known or op.name not in (f"{op.forward}.again", f"{op.forward}.back"):
            raise BaechiError("B603", f"op '{op.name}' is not of this step", help="conform takes recomputed graphs")
        return template(self.program.graph, known[op.forward])

    def _inputs(self, original: Op, op: Op) -> Nodes:
        """By node that the original reads, what to read instead."""
        found: Nodes = {}
        for old, new in zip(original.inputs, op.inputs, strict=True):
            if old != new:
                found |= self.made.get(
                    self.graph.producer[new].name, {}
                )  # a call with several results may be read whole
                found[self.program.values[old]] = self.values[new]
        return found

    def _copy(self, node: fx.Node, name: str, at: Callable[[fx.Node], fx.Node]) -> fx.Node:
        args, kwargs = fx.node.map_arg(node.args, at), fx.node.map_arg(node.kwargs, at)
        made = self.fx.create_node(node.op, node.target, args, kwargs, name, node.type)
        made.meta = dict(node.meta)
        return made

    def _results(self, original: Op, op: Op, made: Nodes) -> Iterator[tuple[str, fx.Node]]:
        for old, new in zip(original.outputs, op.outputs, strict=True):
            if old.name in self.program.values:  # a result that nobody reads has no node
                yield new.name, made[self.program.values[old.name]]

    def _carry(self, op: Op) -> None:
        """An op that brings a tensor to the host, or back."""
        source = self.values[op.inputs[0]]
        # Which device it is, is known when the source of a step is written: a device is written as that op's.
        args: Sequence[Any] = (source,) if op.kind == "offload" else (source, torch.device("cpu"))
        target = host.offload if op.kind == "offload" else host.fetch
        name = op.name.replace(".", "_")
        node = self.fx.create_node("call_function", target, tuple(args), {}, name)
        node.meta = dict(source.meta)
        self.nodes[op.name] = (node,)
        self.values[op.outputs[0].name] = node
        self.made[op.name] = {}
