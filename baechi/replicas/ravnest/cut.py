"""A captured training step cut into the stages of a pipeline, as a plan places its ops.

A stage has the forward ops of one device. What later stages read goes from stage to stage along the line; a weight that
another stage reads, such as a tied one, goes along as an activation does, and its gradient comes back. What reads the
target belongs to the loss.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from baechi.errors import BaechiError
from baechi.frontends.pytorch import TorchProgram
from baechi.replicas.ravnest.stage import Stage

__all__ = ["Cut", "cut_step"]


@dataclass(frozen=True, eq=False)
class Cut:
    """A step as stages; `cut_step` makes it.

    Attributes:
        program: the captured step.
        count: of stages.
        homes: by parameter and buffer, the stage that keeps it.
    """

    program: TorchProgram
    count: int
    homes: Mapping[str, int]
    _stages: Mapping[fx.Node, int]
    _weights: Mapping[fx.Node, str]
    _writes: Mapping[fx.Node, fx.Node]
    _result: fx.Node

    def names(self, index: int) -> tuple[str, ...]:
        """The parameters and buffers of a stage."""
        return tuple(name for name, home in self.homes.items() if home == index)

    def trained(self, index: int) -> tuple[str, ...]:
        """The parameters of a stage that are updated."""
        return tuple(name for name in self.names(index) if name in self.program.updates)

    def stage(self, index: int, values: Mapping[str, Tensor], update_every: int = 1) -> Stage:
        """Make a stage.

        Args:
            index: which one.
            values: its parameters and buffers by name; they are changed from then on.
            update_every: as for `Stage`.
        """
        spec, trained = self.program.optimizer, self.trained(index)
        assert spec is not None  # `cut_step` refuses a step without one
        own = {n: nn.Parameter(values[n]) if n in trained else values[n] for n in self.names(index)}
        incoming = self._of(0, "placeholder") if index == 0 else self._passed(index - 1)
        module = self._module(own, incoming, self._of(index), self._passed(index))
        loss = None
        if index == self.count - 1:
            targets = self._of(self.count, "placeholder")
            behind = self._module({}, [*self._passed(index), *targets], self._of(self.count), [self._result])
            loss = _Loss(behind, len(targets))
        return Stage(module, lambda parameters: spec.cls(list(parameters), **spec.options), loss, update_every)

    def _of(self, index: int, kind: str = "call_function") -> list[fx.Node]:
        return [n for n, s in self._stages.items() if s == index and n.op == kind and n not in self._weights]

    def _passed(self, index: int) -> list[fx.Node]:
        """What goes from a stage to the next one; behind the last is the loss."""
        later = [node for node, stage in self._stages.items() if stage > index]
        read = {x for node in later for x in node.all_input_nodes} | (
            {self._result} if index == self.count - 1 else set()
        )
        return [node for node, stage in self._stages.items() if stage <= index and node in read]

    def _module(
        self, own: Mapping[str, Tensor], incoming: Iterable[fx.Node], inside: Iterable[fx.Node], out: Sequence[fx.Node]
    ) -> fx.GraphModule:
        """From what comes in to what goes out, with weights of its own."""
        graph, attributes, written = fx.Graph(), dict(own), set(self._writes.values())
        made = {node: graph.placeholder(node.name) for node in incoming}

        def value(node: fx.Node) -> fx.Node:
            if node not in made:
                name = self._weights.get(node) or f"constant_{node.name}"
                if node.op == "get_attr":
                    attributes[name] = self.program.constants[node.name]
                made[node] = graph.get_attr(name)
                if node in written:  # autograd may keep what was read
                    made[node] = graph.call_function(torch.ops.aten.clone.default, (made[node],))
            return made[node]

        for node in inside:
            made[node] = graph.node_copy(node, value)
        sent = [_kept_apart(graph, value(node)) for node in out]
        for new, buffer in self._writes.items():
            if self._weights[buffer] in own:
                still = graph.call_function(torch.ops.aten.detach.default, (value(new),))
                graph.call_function(torch.ops.aten.copy_.default, (graph.get_attr(self._weights[buffer]), still))
        graph.output(tuple(sent))
        return fx.GraphModule(attributes, graph)


class _Loss:
    """What is behind the last stage, of its outputs and the flattened target."""

    def __init__(self, module: fx.GraphModule, targets: int) -> None:
        self._module, self._targets = module, targets

    def __call__(self, *given: Tensor) -> Tensor:
        loss: Tensor = self._module(*given[: len(given) - 1], *given[-1])[0]
        return loss


def _kept_apart(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """A weight that is sent is not to change with the next update."""
    return graph.call_function(torch.ops.aten.clone.default, (node,)) if node.op == "get_attr" else node


def cut_step(program: TorchProgram, device: Mapping[str, str], line: Sequence[str], targets: int = 1) -> Cut:
    """Cut a step as a plan does.

    Args:
        program: a training step of one micro-batch, with a loss and an optimiser.
        device: by op, where a plan for a line of stages puts it (`baechi.replicas.ravnest.crews`).
        line: the devices that have a stage, in order.
        targets: how many of the step's inputs, the last ones, are the target.

    Raises:
        BaechiError: B859 when the devices take turns along the step, so that they are no line of stages, or the step has
            no loss, no optimiser, or an optimiser with several groups.
    """
    if not program.has_loss or program.optimizer is None or program.optimizer.groups:
        what = f"'{program.graph.name}' is no step with a loss and an optimiser of one group of parameters"
        raise BaechiError("B859", what, help="give loss=… and optimizer=…")
    place = {device: i for i, device in enumerate(line)}
    forward = [op for op in program.graph.ops if op.phase == "forward"]
    stages = {n: place[device[op.name]] for op in forward for n in _nodes(program, op.name)}
    weights = {program.values[op]: n for n, op in {**program.parameters, **program.buffers}.items()}
    writes = {
        program.values[program.graph.op[assign].inputs[0]]: program.values[program.buffers[name]]
        for name, assign in program.buffer_updates.items()
    }
    (name,) = (name for name in program.outputs if name is not None)
    result = program.values[name]
    found = _settle(program, stages, writes, result, len(line), targets)
    homes = {name: found[node] for node, name in weights.items() if node in found}
    return Cut(program, len(line), homes, found, weights, writes, result)


def _nodes(program: TorchProgram, name: str) -> tuple[fx.Node, ...]:
    return program.nodes[name] or (program.values[name],)


def _settle(
    program: TorchProgram,
    stages: Mapping[fx.Node, int],
    writes: Mapping[fx.Node, fx.Node],
    result: fx.Node,
    count: int,
    targets: int,
) -> dict[fx.Node, int]:
    """By node that is needed, in order, its stage; `count` is that of the loss."""
    needed, left = set[fx.Node](), [result, *writes]
    while left:
        node = left.pop()
        if node not in needed:
            needed.add(node)
            left += node.all_input_nodes
    inputs = {program.values[op]: k for k, op in enumerate(program.inputs) if op is not None}
    first_target = len(program.inputs) - targets
    found: dict[fx.Node, int] = {}
    for node in program.module.graph.nodes:
        if node not in needed or node.name in program.constants:
            continue
        before = [found[x] for x in node.all_input_nodes if x in found]
        home = stages.get(node, 0)
        if node in inputs:
            home = count if inputs[node] >= first_target else 0
        elif count in before:
            home = count
        if any(stage > home for stage in before):
            what = "the plan's devices take turns along the step: it is no line of stages"
            raise BaechiError("B859", what, help="form the clusters anew: plans for them are lines")
        found[node] = home
    return found
