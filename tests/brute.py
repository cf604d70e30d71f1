"""Tiny graphs, clusters for them, and all that can be done with them: what brute force goes through."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from baechi.cost import Problem
from baechi.ir.cluster import CONTENTIONS, Cluster, Contention, Device, Link
from baechi.ir.graph import Graph
from baechi.models.graphs import random_dag
from baechi.sim import Schedule

LINK = Link(1e-6, 1e9)
EQUAL = tuple(Device(f"d{k}", 1 << 40) for k in range(3))


def tiny(seed: int) -> Graph:
    """Three to five ops, some free, some in groups."""
    return random_dag(seed, 3 + seed % 3, groups=seed % 4 == 0, reach=3, zero_cost=0.1)


def unequal(seed: int) -> tuple[Device, ...]:
    """Three devices of random speeds."""
    speeds = random.Random(seed).choices([0.5, 1.0, 2.0, 5.0], k=3)
    return tuple(replace(d, speed=s) for d, s in zip(EQUAL, speeds, strict=True))


def contention(seed: int) -> Contention:
    return CONTENTIONS[seed % 3]


def cluster(devices: Sequence[Device], seed: int, **more: object) -> Cluster:
    """Devices with one kind of link."""
    return Cluster(tuple(devices), LINK, contention=contention(seed), **more)  # type: ignore[arg-type]


def every_placement(problem: Problem) -> Iterator[np.ndarray]:
    """(ops,) devices, for every placement that keeps groups together."""
    a = problem.arrays
    for home in product(range(len(a.cap)), repeat=len(a.group_ptr) - 1):
        yield np.array(home)[a.group]


def every_schedule(problem: Problem, sequences: Sequence[Sequence[int]]) -> Iterator[Schedule]:
    """Every placement with every one of the sequences."""
    orders = [np.array(sequence) for sequence in sequences]
    for device in every_placement(problem):
        for order in orders:
            yield Schedule(device, order)
