"""What placers leave out where it would cost much: nothing that could be better, or what a very large step cannot afford."""

from itertools import pairwise

import numpy as np
import pytest

from baechi.cost import Problem
from baechi.ir.cluster import Cluster, Device, Link
from baechi.models.graphs import random_dag
from baechi.placers import etf, heft, segments
from baechi.placers.effort import visits
from baechi.placers.etf import Etf
from baechi.placers.fixed import Single
from baechi.placers.heft import Heft
from baechi.sim.evaluate import Schedule, score


def equal(devices: int) -> Cluster:
    return Cluster(tuple(Device(f"d:{k}", 1 << 40) for k in range(devices)), Link(1e-6, 1e9))


def test_single_asks_once_for_each_kind_of_device_and_misses_nothing() -> None:
    speeds, memories = (1.0, 1.0, 2.0, 2.0, 2.0), (1 << 30, 1 << 30, 1 << 30, 1 << 12, 1 << 12)
    devices = (Device(f"d:{k}", m, speed=s) for k, (s, m) in enumerate(zip(speeds, memories, strict=True)))
    problem = Problem(random_dag(1, 30), Cluster(tuple(devices)))
    found = list(Single().schedules(problem, 0))
    assert [int(one.device[0]) for one in found] == [0, 2, 3]
    everywhere = [Schedule(np.full(30, d, np.int64), problem.arrays.order) for d in range(5)]
    assert min(score(problem.arrays, s) for s in found) == min(score(problem.arrays, s) for s in everywhere)


def test_devices_of_hosts_with_fewer_cores_are_of_another_kind() -> None:
    devices = tuple(Device(f"d:{k}", 1 << 30, host=host, threads=2) for k, host in enumerate(("a", "a", "b")))
    problem = Problem(random_dag(1, 10), Cluster(devices, cores={"a": 4, "b": 1}))
    assert [int(one.device[0]) for one in Single().schedules(problem, 0)] == [0, 2]


def test_visits_grow_with_the_step_and_from_64_devices_on_with_the_devices() -> None:
    graph = random_dag(1, 30)
    counts = [visits(Problem(graph, equal(devices)).arrays) for devices in (1, 32, 64, 128)]
    assert counts[0] == counts[1] == 30 + sum(len(op.inputs) + len(op.after) for op in graph.ops) + 1
    assert [b / a for a, b in pairwise(counts)] == [1, 2, 2]


@pytest.mark.parametrize("module", [segments, heft, etf])
def test_a_step_that_is_too_large_gets_the_first_schedules_only(
    module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem(random_dag(2, 30), equal(4))
    makers = {
        segments: segments.splits,
        heft: lambda p: Heft(tries=0).schedules(p, 0),
        etf: lambda p: Etf().schedules(p, 0),
    }
    make = makers[module]
    before = list(make(problem))
    monkeypatch.setattr(module, "_WORK", 1.0)
    after = list(make(problem))
    assert 0 < len(after) < len(before)
    for one, other in zip(after, before, strict=False):
        assert all((a == b).all() for a, b in zip(one[:2], other[:2], strict=True))


def test_heft_asks_for_no_more_room_where_everything_fits_on_any_device(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(random_dag(3, 30), equal(3))
    before = list(Heft(tries=0).schedules(problem, 0))
    monkeypatch.setattr(heft, "_fits_anyhow", lambda _: False)
    after = list(Heft(tries=0).schedules(problem, 0))
    assert [(s.device.tolist(), s.sequence.tolist()) for s in before] == [
        (s.device.tolist(), s.sequence.tolist()) for s in after
    ]
