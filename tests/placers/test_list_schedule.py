"""The list scheduler against m-ETF written naively, from section 2.2 of the paper, and against published makespans."""

import random
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baechi.cost import Problem
from baechi.ir.cluster import CONTENTIONS, Cluster, Contention, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.models.graphs import (
    DAG_KINDS,
    chain,
    dag,
    figure_2,
    figure_21,
    fork_join,
    hanen_munier,
    paper_figure_1,
    random_dag,
)
from baechi.placers import Etf, Placer, RoundRobin, Sct, Topo
from baechi.placers.schedule import list_schedule
from baechi.placers.sct import favourite_children
from baechi.placers.variants import Variant
from baechi.sim import Schedule, evaluate

TICKS = 10**12


def unlimited(count: int, contention: Contention = "sequential", link: Link = Link()) -> Cluster:  # noqa: B008
    return Cluster(tuple(Device(f"d{k}", 1 << 50) for k in range(count)), link, contention=contention)


@dataclass
class Naive:
    """m-ETF, event driven: at each moment the (op, device) of smallest (earliest start, rank, device) goes first.

    Inputs are fetched when an op is placed, in the order in which it names them, one after the other on the
    lanes; a lane is free again when the transfer that was fetched last on it ends.
    """

    graph: Graph
    cluster: Cluster
    seconds: dict[tuple[str, int], int]
    device: dict[str, int] = field(default_factory=dict)
    start: dict[str, int] = field(default_factory=dict)
    end: dict[str, int] = field(default_factory=dict)
    arrived: dict[tuple[str, int], int] = field(default_factory=dict)
    lane: dict[tuple[str, int], int] = field(default_factory=dict)

    def lanes(self, source: int, destination: int) -> list[tuple[str, int]]:
        return {
            "sequential": [("any", source), ("any", destination)],
            "duplex": [("send", source), ("receive", destination)],
            "parallel": [],
        }[self.cluster.contention]

    def arrival(self, op: Op, p: int, *, fetch: bool) -> int:
        """When all inputs of `op` are on device `p`."""
        lane, arrived = dict(self.lane), dict(self.arrived)
        latest = 0
        for name in op.inputs:
            maker = self.graph.producer[name].name
            there, source = self.end[maker], self.device[maker]
            if source != p:
                if (name, p) not in arrived:
                    lanes = self.lanes(source, p)
                    seconds = self.graph.tensor[name].seconds
                    assert seconds is not None
                    arrived[name, p] = max([there, *(lane.get(one, 0) for one in lanes)]) + round(seconds * TICKS)
                    lane.update(dict.fromkeys(lanes, arrived[name, p]))
                there = arrived[name, p]
            latest = max(latest, there)
        for other in op.after:
            latest = max(latest, self.end[other])
        if fetch:
            self.lane, self.arrived = lane, arrived
        return latest

    def run(self) -> "Naive":
        ops, rank = self.graph.ops, {self.graph.ops[i].name: at for at, i in enumerate(self.graph.order)}
        devices = range(len(self.cluster))
        free, now = dict.fromkeys(devices, 0), 0
        while len(self.device) < len(ops):
            ready = [
                op
                for op in ops
                if op.name not in self.device
                and all(self.end.get(self.graph.producer[t].name, now + 1) <= now for t in op.inputs)
                and all(self.end.get(other, now + 1) <= now for other in op.after)
            ]
            pairs = [
                (max(free[p], self.arrival(op, p, fetch=False)), rank[op.name], p, op)
                for op in ready
                for p in devices
                if free[p] <= now
            ]
            least = min(pairs, key=lambda pair: pair[:3], default=None)
            if least is not None and least[0] <= now:
                _, _, p, op = least
                self.arrival(op, p, fetch=True)
                self.device[op.name], self.start[op.name] = p, now
                self.end[op.name] = free[p] = now + self.seconds[op.name, p]
            else:
                later = [pair[0] for pair in pairs] + [free[p] for p in devices]
                now = min(moment for moment in later if moment > now)
        return self


def small(seed: int, n: int, zero_cost: float) -> Graph:
    """A random graph without ops that are there from the start and free, which follow their readers here."""
    r = random.Random(seed)
    ops: list[Op] = []
    for i in range(n):
        pool = [t.name for op in ops for t in op.outputs]
        inputs = tuple(r.sample(pool, min(len(pool), r.randint(0, 3))))
        outputs = tuple(Tensor(f"op{i}.{k}", seconds=r.randint(0, 6) * 1.0) for k in range(r.randint(1, 2)))
        after = (r.choice(ops).name,) if ops and r.random() < 0.1 else ()
        seconds = 0.0 if (inputs or after) and r.random() < zero_cost else float(r.randint(1, 8))
        ops.append(Op(f"op{i}", "op", inputs, outputs, after, seconds=seconds))
    r.shuffle(ops)
    return Graph(tuple(ops))


@settings(max_examples=300)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 14),
    count=st.integers(1, 4),
    contention=st.sampled_from(CONTENTIONS),
    speeds=st.booleans(),
)
def test_it_is_m_etf(seed: int, n: int, count: int, contention: Contention, speeds: bool) -> None:
    """Same devices, and the simulator starts every op when the naive one does."""
    graph = small(seed, n, 0.0)
    devices = tuple(Device(f"d{k}", 1 << 50, speed=2.0**k if speeds else 1.0) for k in range(count))
    cluster = Cluster(devices, contention=contention)
    a = Problem(graph, cluster).arrays
    ticks = {(op.name, p): int(a.ticks[i, p]) for i, op in enumerate(graph.ops) for p in range(count)}
    naive = Naive(graph, cluster, ticks).run()
    made = list_schedule(a, np.full(n, -1), np.full(n, -1), True)
    assert made.device.tolist() == [naive.device[op.name] for op in graph.ops]
    run, _ = evaluate(a, Schedule(made.device, made.sequence, made.sent))
    assert run.op_start.tolist() == [naive.start[op.name] for op in graph.ops]
    assert run.makespan == max(naive.end.values())


@pytest.mark.parametrize("placer", [Etf(), Sct(), Sct(threshold=0.5), Topo(), RoundRobin()], ids=str)
@pytest.mark.parametrize("contention", CONTENTIONS)
def test_every_schedule_can_be_carried_out(placer: Placer, contention: Contention) -> None:
    """With groups and views of parameters, in the order of transfers that was planned."""
    for seed in range(30):
        graph = random_dag(seed, 30, groups=seed % 2 == 0, shuffled=seed % 3 == 0)
        problem = Problem(graph, unlimited(3, contention))
        a = problem.arrays
        for schedule in placer.lifted(Variant.plain(problem), 0):
            run, _ = evaluate(a, schedule)
            assert run.done == len(graph), f"seed {seed}, order of transfers given: {schedule.sent is not None}"
            assert (schedule.device >= 0).all()
            for group in range(len(a.group_ptr) - 1):
                assert len(set(schedule.device[a.group == group].tolist())) == 1


def planned(placer: Placer, graph: Graph, count: int, contention: Contention) -> float:
    """Makespan of the list schedule itself, in seconds, before the simulator orders its transfers anew."""
    problem = Problem(graph, unlimited(count, contention))
    return evaluate(problem.arrays, next(placer.lifted(Variant.plain(problem), 0)))[0].makespan / TICKS


@pytest.mark.parametrize(
    ("graph", "count", "sequential", "parallel"),
    [
        (paper_figure_1(), 2, 8, 8),
        (figure_2(), 2, 14, 14),
        (figure_21(), 2, 22, 22),
        (figure_21(), 3, 20, 20),
        (hanen_munier(), 2, 36, 36),
        (hanen_munier(), 3, 29, 29),
    ],
    ids=lambda value: value.name if isinstance(value, Graph) else str(value),
)
def test_published_makespans_of_m_etf(graph: Graph, count: int, sequential: int, parallel: int) -> None:
    """Those that the original's two programs print; m-SCT at Baechi's threshold of 0.1 is m-ETF on all of them.

    One differs on purpose: on Hanen and Munier's graph the PyTorch version (parallel) needs 38 on two
    devices, because its ties go to the op that was ready earlier. Here they go to the earlier op, as in
    the TensorFlow version (36).
    """
    for placer in (Etf(), Sct()):
        assert planned(placer, graph, count, "sequential") == sequential
        assert planned(placer, graph, count, "parallel") == parallel


@pytest.mark.parametrize(
    ("graph", "count", "contention", "seconds"),
    [
        (figure_2(), 2, "sequential", 14),
        (figure_2(), 2, "parallel", 14),
        (figure_21(), 2, "sequential", 23),
        (figure_21(), 2, "parallel", 23),
        (figure_21(), 3, "sequential", 20),
        (hanen_munier(), 3, "sequential", 32),
        (hanen_munier(), 3, "parallel", 30),
    ],
    ids=lambda value: value.name if isinstance(value, Graph) else str(value),
)
def test_published_makespans_of_m_sct_at_one_half(
    graph: Graph, count: int, contention: Contention, seconds: int
) -> None:
    """The original's others depend on its rule of urgency, which waits until no device is busy: on two devices
    42 (sequential) and 38 (parallel) of Hanen and Munier's graph, 36 here; on three in parallel 19 of
    figure 21, 20 here."""
    assert planned(Sct(threshold=0.5), graph, count, contention) == seconds


def test_m_sct_with_the_urgency_of_hanen_and_munier_is_no_worse_than_the_original() -> None:
    assert planned(Sct(threshold=0.5), hanen_munier(), 2, "sequential") <= 42
    assert planned(Sct(threshold=0.5), hanen_munier(), 2, "parallel") <= 38


def test_favourite_children_of_figure_1() -> None:
    child = favourite_children(Problem(paper_figure_1(), unlimited(2)).arrays)
    assert child.tolist() == [1, 2, 3, -1, 5, -1]


@pytest.mark.parametrize("placer", [Etf(), Sct()], ids=str)
def test_figure_1_of_the_paper(placer: Placer) -> None:
    """Unlimited memory: 8 seconds. Four units each: 9, and the placement that the figure shows."""
    plan = placer.place(paper_figure_1(), unlimited(2))
    assert plan.predicted.step_seconds == 8.0
    assert plan.order == {"d0": ("op1", "op2", "op3", "op4"), "d1": ("op5", "op6")}
    four = Cluster((Device("d0", 4), Device("d1", 4)), contention="sequential")
    plan = placer.place(paper_figure_1(), four)
    assert plan.predicted.step_seconds == 9.0
    assert plan.order == {"d0": ("op1", "op2", "op6"), "d1": ("op5", "op3", "op4")}
    assert plan.predicted.peak_bytes == {"d0": 4, "d1": 4}


PUBLISHED_US = {
    ("branchy", "m-etf"): 217_381,
    ("layered", "m-etf"): 142_732,
    ("wide", "m-etf"): 138_800,
    ("branchy", "m-sct"): 204_238,
    ("layered", "m-sct"): 141_109,
    ("wide", "m-sct"): 127_443,
}
"""The original's on four devices, one transfer at a time; of m-SCT the best over its solvers."""


@pytest.mark.parametrize("kind", DAG_KINDS)
@pytest.mark.parametrize("placer", [Etf(), Sct()], ids=str)
def test_a_thousand_ops_take_no_longer_than_the_originals_plan(
    reference: ModuleType, placer: Placer, kind: str
) -> None:
    graph = dag(kind, 1000, 1)
    plan = placer.place(graph, unlimited(4))
    assert plan.predicted.step_seconds * 1e6 <= PUBLISHED_US[kind, placer.name]
    assert reference.makespan_of(graph, plan) == round(plan.predicted.step_seconds * TICKS)


def test_a_chain_stays_on_one_device_and_a_fork_spreads() -> None:
    assert len(set(Etf().place(chain(20), unlimited(4)).device.values())) == 1
    cheap = fork_join(4, 5, seconds=1e-3, transfer_seconds=1e-6)
    plan = Etf().place(cheap, unlimited(4))
    assert plan.predicted.step_seconds == pytest.approx(7e-3, abs=1e-5)
