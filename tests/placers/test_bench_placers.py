"""The benchmark's peers: what they are given and what is made of their answers."""

import itertools
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baechi.cost.problem import Problem
from baechi.ir.cluster import Cluster, Device
from baechi.ir.graph import Graph
from baechi.models.graphs import STG_SHAPES, chain, random_dag, stg
from baechi.placers import Heft, get_placer
from baechi.placers.base import best_of
from baechi.sim.evaluate import Schedule, score

TOOLS = Path(__file__).parents[2] / "tools"
MODULES = (
    "_bench_exact",
    "_bench_models",
    "_bench_original",
    "_bench_peers",
    "_bench_stg",
    "_bench_table",
    "bench_placers",
)


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        import bench_placers as tool

        yield tool
    for name in MODULES:
        sys.modules.pop(name, None)


def processors(count: int, nbytes: int = 1 << 50) -> Cluster:
    return Cluster(tuple(Device(f"p{k}", nbytes) for k in range(count)), contention="parallel")


def order_of_all(problem: Problem, schedule: Schedule) -> None:
    a = problem.arrays
    place = np.argsort(schedule.sequence)
    assert sorted(schedule.sequence) == list(range(len(a.rank)))
    for i in range(len(a.rank)):
        assert all(place[a.t_op[t]] < place[i] for t in a.in_t[a.in_ptr[i] : a.in_ptr[i + 1]])


@pytest.mark.filterwarnings("ignore")
class TestSaga:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("saga")

    @pytest.mark.parametrize("seed", range(4))
    def test_our_heft_is_not_behind(self, bench: Any, seed: int) -> None:
        """Without ties, and with transfers that take no time, there is one reading of the paper."""
        r = random.Random(seed)
        graph = stg(80, seed, shape=STG_SHAPES[seed], times="exponential")
        graph = graph.with_ops(replace(op, seconds=(op.seconds or 0.0) * r.uniform(0.9, 1.1)) for op in graph.ops)
        problem = Problem(graph, processors(3))
        (peer,) = bench.peers(1000, ("HEFT",), plain=False)
        schedule, _, _ = peer.solve(problem)
        order_of_all(problem, schedule)
        mine = best_of(problem, Heft().schedules(problem, 0)).score
        assert mine[1] <= score(problem.arrays, schedule)[1] + 2  # ticks: saga counts in floats

    def test_its_own_makespan_is_the_simulators(self, bench: Any) -> None:
        import saga.schedulers

        problem = Problem(stg(60, 5, shape="samepred", transfer=9), processors(3))
        (peer,) = bench.peers(1000, ("HEFT",), plain=False)
        network, tasks = sys.modules["_bench_peers"]._as_saga(problem)
        claimed = saga.schedulers.HeftScheduler().schedule(network, tasks).makespan
        assert score(problem.arrays, peer.solve(problem)[0]) == (0, pytest.approx(claimed, abs=2))

    def test_groups_stay_together(self, bench: Any) -> None:
        problem = Problem(random_dag(3, 60, groups=True), processors(3))
        for peer in bench.peers(1000):
            schedule = peer.solve(problem)[0]
            order_of_all(problem, schedule)
            for g in range(len(problem.arrays.group_ptr) - 1):
                assert len(set(schedule.device[problem.arrays.group == g])) == 1

    def test_large_graphs_are_left_out(self, bench: Any) -> None:
        (peer,) = bench.peers(10, ("HEFT",), plain=False)
        assert sys.modules["_bench_table"]._cell(peer, Problem(chain(11), processors(2)))[0].why == "too large"


def brute_force(graph: Graph, count: int) -> int:
    """The least makespan in milliseconds over all topological orders, each task to the processor that is free first."""
    times = [round((op.seconds or 0.0) * 1000) for op in graph.ops]
    index = {op.name: i for i, op in enumerate(graph.ops)}
    before = [{index[graph.producer[t].name] for t in op.inputs} for op in graph.ops]
    best = sum(times)
    for order in itertools.permutations(range(1, len(times) - 1)):
        free, end = [0] * count, {0: 0}
        for i in order:
            if not before[i] <= end.keys():
                break
            ready = max((end[j] for j in before[i]), default=0)
            at = min(range(count), key=lambda p: (max(free[p], ready), -free[p]))
            free[at] = end[i] = max(free[at], ready) + times[i]
        else:
            best = min(best, max(end.values()))
    return best


@pytest.mark.parametrize("seed", range(6))
def test_the_optimum_of_small_task_graphs(bench: Any, seed: int) -> None:
    graph = stg(6, seed, shape=STG_SHAPES[seed % 4])
    found = sys.modules["_bench_stg"].optimum(graph, 2, 10.0)
    assert found == brute_force(graph, 2)


def test_a_table_says_gap_and_excess(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    table = sys.modules["_bench_table"]
    graph = chain(4, seconds=0.1, nbytes=0)
    roomy = table.Case("roomy", Problem(graph, processors(2)))
    tight = table.Case("tight", Problem(chain(4, seconds=0.1, nbytes=100), processors(2, 150)))

    def all_on_one(problem: Problem) -> tuple[Schedule, float, dict[str, int]]:
        return Schedule(np.zeros(4, np.int64), problem.arrays.order), 0.5, {"mine": 300 * 10**9}

    table.run("title", [roomy, tight], [table.Method("peer", all_on_one), table.ours("single", get_placer("single"))])
    lines = capsys.readouterr().out.splitlines()
    assert "| *proved bound* | 400.00 | 400.00 |" in lines
    assert "| peer | 400.00 +0.0% (0.5 s) | 400.00 +0.0% (0.5 s), over by 50 B |" in lines
    assert lines[-1].startswith("| single | 400.00 +0.0% (")
    assert lines[-1].endswith("| no plan |")


def test_modules_of_a_device_map(bench: Any) -> None:
    device_of = sys.modules["_bench_models"]._device_of
    mapped = {"stem": 0, "layers.0": 0, "layers.1.norm": 1, "layers.1.linear": 2}
    paths = {"stem.conv": 0, "layers.0.a.b": 0, "layers.1.linear": 2, "layers.1": 1, "": None, "head": None}
    assert {path: device_of(path, mapped) for path in paths} == paths
    assert device_of("anything", {"": 3}) == 3


@pytest.mark.parametrize("ratio", [0.1, 5.0])
def test_transfers_are_scaled_to_a_ratio(bench: Any, ratio: float) -> None:
    scaled = sys.modules["_bench_exact"].with_ratio
    problem = Problem(scaled(bench.dag("wide", 40, 1), ratio), processors(2))
    a = problem.arrays
    assert a.t_ticks.mean() == pytest.approx(ratio * a.ticks[:, 0].mean(), rel=1e-9)
