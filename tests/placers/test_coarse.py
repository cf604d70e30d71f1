"""Clusters: within their shares, whole groups, coarser level by level; views on arrays equal the passes on graphs."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from baechi.cost import Problem, op_seconds
from baechi.cost.problem import group_labels
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.models.graphs import dag, random_dag
from baechi.passes import Colocate, CoPlace, forward_only, hosts
from baechi.placers.coarse import levels
from baechi.placers.variants import variants

CLUSTER = Cluster(tuple(Device(f"d{k}", 1 << 50) for k in range(4)), Link(1e-5, 1e9))


def as_sets(labels: NDArray[np.int64]) -> list[int]:
    """Labels renumbered in the order in which they come, so that equal partitions are equal."""
    first: dict[int, int] = {}
    return [first.setdefault(label, len(first)) for label in labels.tolist()]


def finer(one: NDArray[np.int64], other: NDArray[np.int64]) -> bool:
    """Whether every cluster of the one lies in one cluster of the other."""
    return len(set(zip(one.tolist(), other.tolist(), strict=True))) == len(set(one.tolist()))


@pytest.mark.parametrize("kind", ["layered", "branchy"])
def test_levels_grow_within_their_shares(kind: str) -> None:
    problem = Problem(dag(kind, 600, 1), CLUSTER)
    work = problem.arrays.ticks[:, 0]
    before = problem.arrays.group
    counts = [len(work)]
    for size, labels in zip((64, 16, 4), levels(problem, (64, 16, 4)), strict=True):
        assert finer(before, labels)
        load = np.bincount(labels, work)
        members = np.bincount(labels)
        assert load[members > 1].max() <= work.sum() / (4 * size)
        counts.append(len(set(labels.tolist())))
        before = labels
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < counts[0] / 4


def test_groups_stay_whole() -> None:
    problem = Problem(random_dag(3, 200, groups=True), CLUSTER)
    assert all(finer(problem.arrays.group, labels) for labels in levels(problem, (16, 4)))


def test_the_dearest_edge_goes_first() -> None:
    """A chain of two heavy transfers and a light one between: the light one is what is cut."""
    sizes = (1 << 30, 1, 1 << 30)
    ops = [Op("op0", "op", outputs=(Tensor("t0", sizes[0]),), seconds=1.0)]
    ops += [Op(f"op{k}", "op", (f"t{k - 1}",), (Tensor(f"t{k}", (*sizes, 1)[k]),), seconds=1.0) for k in (1, 2, 3)]
    two = Cluster(CLUSTER.devices[:2], Link(1e-5, 1e9))
    (labels,) = levels(Problem(Graph(tuple(replace(op, outputs=op.outputs[:1]) for op in ops)), two), (1,))
    assert labels[0] == labels[1] != labels[2] == labels[3]


def trained(graph: Graph) -> Graph:
    """The graph and, for each op, a backward op that reads what it made."""
    backward = [
        Op(
            f"{op.name}'",
            "backward",
            tuple(t.name for t in op.outputs),
            phase="backward",
            seconds=1e-4,
            forward=op.name,
        )
        for op in reversed(graph.ops)
    ]
    return Graph((*graph.ops, *backward))


@pytest.mark.parametrize("seed", range(8))
def test_views_on_arrays_are_those_of_the_passes(seed: int) -> None:
    graph = trained(random_dag(seed, 50, groups=seed % 2 == 0, declared=seed % 3 > 0))
    problem = Problem(graph, CLUSTER)
    first, link = CLUSTER.devices[0], CLUSTER.link
    pass_ = CoPlace(
        lambda op: op_seconds(op, first),
        lambda t: link.seconds(t.nbytes) if t.seconds is None else t.seconds,
        1 / 16,
        tiny_seconds=first.launch_seconds,
    )
    _, together, forward = variants(problem)
    expected = pass_(Colocate(gradient=True, aliases=True, twins=True)(graph))
    assert as_sets(together.problem.arrays.group) == as_sets(group_labels(expected))
    half = forward_only(graph, seconds=lambda op: op_seconds(op, first))
    arrays = Problem(half, CLUSTER).arrays
    found = forward.problem.arrays
    for name in ("ticks", "persistent", "temp", "rank"):
        assert np.array_equal(getattr(found, name), getattr(arrays, name)), name
    assert as_sets(found.group) == as_sets(group_labels(pass_(half)))
    host = hosts(graph)
    for op, group in zip(graph.ops, forward.whole.arrays.group.tolist(), strict=True):
        other = next(i for i, one in enumerate(graph.ops) if one.name == host[op.name])
        assert forward.whole.arrays.group[other] == group
