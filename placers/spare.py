"""Whether a step that does not fit could, if less were kept for its backward pass."""

from collections.abc import Iterator

import numpy as np

from baechi.cost.problem import Problem
from baechi.ir.graph import Graph
from baechi.passes.again import is_late
from baechi.passes.offload import offloadable
from baechi.passes.recompute import remade, repeatable
from baechi.passes.storage import storage
from baechi.sim.infeasible import explain_infeasible

__all__ = ["could_help"]


def could_help(problem: Problem) -> tuple[str, ...]:
    """Which of ``recompute`` and ``offload`` may make a step fit: no proof stands when all that they could spare is gone.

    Args:
        problem: a step on devices with memory in bytes.
    """
    return tuple(word for word, tensors in _spared(problem) if tensors and _may_fit(problem, tensors))


def _spared(problem: Problem) -> Iterator[tuple[str, frozenset[str]]]:
    graph = problem.graph
    yield "recompute", _recomputed(graph)
    if all(device.host_bytes_per_second > 0 for device in problem.cluster.devices):
        yield "offload", frozenset(offloadable(graph))


def _recomputed(graph: Graph) -> frozenset[str]:
    """The tensors with memory of their own that could be made again for the backward pass."""
    bases, known = storage(graph), repeatable(graph)
    late = {bases[name] for op in graph.ops if is_late(op) for name in op.inputs}
    return frozenset(t.name for op in graph.ops if op.name in known for t in remade(op) if t.name in late)


def _may_fit(problem: Problem, spared: frozenset[str]) -> bool:
    mask = np.zeros(len(problem.arrays.t_op), np.bool_)
    for first, op in zip(problem.arrays.out_ptr.tolist(), problem.graph.ops, strict=False):
        for k, tensor in enumerate(op.outputs):
            mask[first + k] = tensor.name in spared
    return explain_infeasible(problem, spared=mask) is None
