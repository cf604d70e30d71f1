"""Graph partitioning: what the parts are, and what a missing library says."""

import importlib.util

import numpy as np
import pytest

from baechi.cost.problem import Problem
from baechi.errors import BaechiError
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.models.graphs import chain, fork_join, random_dag
from baechi.placers import Metis, get_placer
from baechi.placers.variants import Variant

LINK = Link(2e-6, 1e8)


def four(nbytes: int = 1 << 40) -> Cluster:
    return Cluster(tuple(Device(f"d{k}", nbytes) for k in range(4)), LINK)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not Metis.available()
    with pytest.raises(BaechiError, match="needs pymetis") as caught:
        get_placer("metis").place(chain(3), four())
    assert caught.value.code == "B507"
    assert "baechi[metis]" in caught.value.help


@pytest.mark.skipif(not Metis.available(), reason="pymetis is not installed")
class TestWithTheLibrary:
    @pytest.mark.parametrize("seed", range(6))
    def test_parts_cover_the_graph_and_keep_groups_together(self, seed: int) -> None:
        problem = Problem(random_dag(seed, 120, groups=True), four())
        found = list(Metis().lifted(Variant.plain(problem), seed))
        assert len(found) > 3
        for schedule in found:
            assert sorted(schedule.sequence) == list(range(120))
            assert set(schedule.device) <= set(range(4))
            for ops in problem.graph.groups.values():
                index = [problem.graph.ops.index(op) for op in ops]
                assert len({schedule.device[i] for i in index}) == 1

    def test_two_islands_are_two_parts(self) -> None:
        """Each island talks to itself; the cheapest balanced cut of the two is none."""

        def island(name: str) -> tuple[Op, ...]:
            return tuple(
                Op(
                    f"{name}{k}",
                    "op",
                    (f"{name}{k - 1}",) if k else (),
                    (Tensor(f"{name}{k}", seconds=5.0),),
                    seconds=1.0,
                )
                for k in range(10)
            )

        graph = Graph((*island("x"), *island("y")))
        plan = Metis().place(graph, Cluster((Device("p", 8), Device("q", 8))))
        assert plan.predicted.step_seconds == 10.0
        assert plan.transfers == ()

    def test_memory_balances_what_time_does_not(self) -> None:
        """Ops that take no time but all of the memory must be spread."""
        ops = tuple(Op(f"o{k}", "op", persistent_bytes=10, seconds=0.0 if k else 1.0) for k in range(8))
        plan = Metis().place(Graph(ops), four(20))
        assert plan.predicted.peak_bytes == {f"d{k}": 20 for k in range(4)}

    def test_a_faster_device_gets_more(self) -> None:
        graph = fork_join(16, 8, transfer_seconds=0.0)
        problem = Problem(graph, Cluster((Device("slow", 1 << 40), Device("fast", 1 << 40, speed=3.0))))
        times = problem.arrays.ticks[:, 0]
        split = next(s for s in Metis().schedules(problem, 0) if len(set(s.device)) == 2)
        share = times[split.device == 1].sum() / times.sum()
        assert 0.65 < share < 0.85

    def test_seeds_are_seeds(self) -> None:
        problem = Problem(random_dag(3, 200, groups=False), four())
        one, again = (np.array([s.device for s in Metis().schedules(problem, 7)]) for _ in range(2))
        assert (one == again).all()
