"""A graph of torch.compile that runs as planned: its tensors become those of a module, which is placed as any other."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from baechi.backends.pytorch.placed import Planner, Runtime
from baechi.backends.switch import is_disabled

__all__ = ["Compiled", "CompiledGraph"]


class Compiled:
    """A graph as a function of its flat inputs, planned when it is called with inputs of a new kind.

    Args:
        graph: what torch.compile found; its inputs are parameters, buffers, inputs and numbers.
        planner: gives the planner; called at the first call, because torch wraps what a backend
            raises while it compiles in an error of its own.
    """

    def __init__(self, graph: fx.GraphModule, planner: Callable[[], Planner]) -> None:
        self._graph, self._planner = graph, planner
        self._numbers = _unwrap_numbers(graph)
        self._differentiable = _is_differentiable(graph)
        if not self._differentiable:
            _free_parameters(graph)
        self._modules: dict[tuple[bool | None, ...], tuple[CompiledGraph, Runtime]] = {}

    def __call__(self, *given: Any) -> Any:
        """Run forward; the results' backward runs as planned too.

        Raises:
            BaechiError: as for `baechi.place`.
        """
        values = [value.item() if i in self._numbers else value for i, value in enumerate(given)]
        if is_disabled():
            return self._graph(*values)
        learns = self._differentiable and torch.is_grad_enabled()
        wanting = tuple(learns and v.requires_grad if isinstance(v, torch.Tensor) else None for v in values)
        if wanting not in self._modules:
            self._modules[wanting] = (CompiledGraph(self._graph, wanting), Runtime(_outlined(self._planner())))
        module, runtime = self._modules[wanting]
        with module.bound(values) as numbers:
            return runtime.forward(module, numbers, {})


class CompiledGraph(nn.Module):
    """A graph that finds the tensors it takes in itself: those that want a gradient as parameters, others as buffers.

    So it is known which tensors live through the step, and what the graph writes into one of them is
    written back.

    Args:
        wanting: by position of the inputs, whether it wants a gradient; None for what is no tensor.
    """

    def __init__(self, graph: fx.GraphModule, wanting: Sequence[bool | None]) -> None:
        super().__init__()
        self.graph = graph
        names = [node.name for node in graph.graph.find_nodes(op="placeholder")]
        self.slots = tuple(
            None if wants is None else (self._parameters if wants else self._buffers, name)
            for name, wants in zip(names, wanting, strict=True)
        )

    def forward(self, *numbers: Any) -> tuple[Any, ...]:
        """Run the graph on the tensors here and these numbers."""
        rest = iter(numbers)
        return tuple(self.graph(*(next(rest) if slot is None else slot[0][slot[1]] for slot in self.slots)))

    @contextmanager
    def bound(self, values: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """Within, the tensors are these; gives the numbers among the values."""
        for slot, value in zip(self.slots, values, strict=True):
            if slot is not None:
                slot[0][slot[1]] = value
        try:
            yield tuple(value for slot, value in zip(self.slots, values, strict=True) if slot is None)
        finally:
            self._parameters.clear()
            self._buffers.clear()

    @contextmanager
    def outlined(self) -> Iterator[None]:
        """Within, all tensors are without memory, and parameters to torch: what another graph made is none."""
        held: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for owner in self.modules():
            held += [(owner._parameters, dict(owner._parameters)), (owner._buffers, dict(owner._buffers))]
            owner._parameters.update({name: nn.Parameter(_outline(t)) for name, t in owner._parameters.items()})
            owner._buffers.update({name: _outline(t) for name, t in owner._buffers.items()})
        try:
            yield
        finally:
            for tensors, before in held:
                tensors.update(before)


def _outlined(planner: Planner) -> Planner:
    def plan(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        assert isinstance(module, CompiledGraph)  # the only module that this planner is given
        with module.outlined():
            return planner(module, args, kwargs)

    return plan


def _outline(tensor: torch.Tensor | None) -> torch.Tensor:
    assert tensor is not None  # only tensors are bound
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="meta")


def _is_differentiable(graph: fx.GraphModule) -> bool:
    """Whether a result can have a gradient; an optimiser's step has none, and writes into what wants one."""
    results = (n.meta.get("example_value") for n in graph.graph.output_node().all_input_nodes)
    return any(isinstance(t, torch.Tensor) and t.grad_fn is not None for t in results)


def _free_parameters(graph: fx.GraphModule) -> None:
    """Parameters that the graph holds itself become buffers: it writes into them and gives no gradients."""
    for owner in graph.modules():
        owner._buffers.update(owner._parameters)
        owner._parameters.clear()


def _unwrap_numbers(graph: fx.GraphModule) -> frozenset[int]:
    """Positions of the numbers that come wrapped in tensors, which the graph takes as numbers from now on."""
    found = set()
    for i, node in enumerate(graph.graph.find_nodes(op="placeholder")):
        if node.users and all(user.op == "call_method" and user.target == "item" for user in node.users):
            found.add(i)
            for user in list(node.users):
                user.replace_all_uses_with(node)
                graph.graph.erase_node(user)
    if found:
        graph.recompile()
    return frozenset(found)
