"""Clusters: within their shares, whole groups, coarser level by level."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from baechi.cost import Problem
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.models.graphs import dag, random_dag
from baechi.placers.coarse import levels

CLUSTER = Cluster(tuple(Device(f"d{k}", 1 << 50) for k in range(4)), Link(1e-5, 1e9))


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
