"""Teams work side by side and hand over: closed forms on ladders, and what must hold of any graph."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baechi.cost import Problem
from baechi.errors import Infeasible
from baechi.ir.cluster import UNLIMITED_BYTES, Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Phase, Tensor
from baechi.ir.verify import verify
from baechi.models.graphs import random_dag
from baechi.placers import Auto, Contiguous, Teams, make_plan
from baechi.placers.base import mends_few
from baechi.sim.evaluate import evaluate

RUNGS, WEIGHT, SECONDS = 12, 1000, 1.0


def ladder(*, trained: bool, rungs: int = RUNGS) -> Graph:
    """Two ops side by side, again and again, each with a weight of its own; `trained`: and the same way back."""

    def rung(k: int, before: tuple[str, ...], phase: Phase) -> list[Op]:
        kept = WEIGHT if phase == "forward" else 0
        return [
            Op(
                f"{phase}{k}{side}",
                "mm",
                before,
                (Tensor(f"{phase}{k}{side}.out", 1),),
                phase=phase,
                seconds=SECONDS,
                persistent_bytes=kept,
                forward=f"forward{k}{side}" if phase == "backward" else None,
            )
            for side in "ab"
        ]

    ops: list[Op] = []
    for phase in ("forward", "backward") if trained else ("forward",):
        for k in range(rungs) if phase == "forward" else reversed(range(rungs)):
            ops += rung(k, tuple(op.outputs[0].name for op in ops[-2:]), phase)
    return Graph(tuple(ops))


def cluster(devices: int, memory: int) -> Cluster:
    return Cluster(tuple(Device(f"d{k}", memory) for k in range(devices)), Link(0.0, 1e15))


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("devices", [2, 4, 6, 7])
def test_a_ladder_takes_half_of_its_work_where_no_two_devices_could_hold_it(devices: int, trained: bool) -> None:
    graph = ladder(trained=trained)
    each = 2 * RUNGS // (devices - devices % 2) * WEIGHT + WEIGHT // 2
    half = sum(op.seconds or 0.0 for op in graph.ops) / 2
    plan = Teams().place(graph, cluster(devices, each))
    assert plan.predicted.step_seconds == pytest.approx(half)
    if devices > 2:
        assert Contiguous().place(graph, cluster(devices, each)).predicted.step_seconds > 1.2 * half


def test_of_a_long_ladder_the_default_placer_mends_nothing_and_takes_theirs() -> None:
    rungs = 1800
    graph = ladder(trained=True, rungs=rungs)
    problem = Problem(graph, cluster(4, rungs * WEIGHT // 2 + WEIGHT))
    assert mends_few(problem)
    plan = make_plan(Auto(), problem, 0)
    assert plan.predicted.step_seconds == pytest.approx(2 * rungs * SECONDS)


def test_memory_without_limit_adds_up_to_no_more() -> None:
    plan = Teams().place(ladder(trained=False), cluster(6, UNLIMITED_BYTES))
    assert plan.predicted.step_seconds == pytest.approx(RUNGS * SECONDS)


def test_no_more_teams_than_the_memory_asks_for() -> None:
    """With memory for all on two devices, no third one is used: there is nothing that it could do sooner."""
    plan = Teams().place(ladder(trained=True), cluster(8, 1 << 30))
    assert len(set(plan.device.values())) == 2


def test_a_backward_op_is_in_the_team_of_its_twin() -> None:
    plan = Teams().place(ladder(trained=True), cluster(4, RUNGS * WEIGHT // 2 + WEIGHT // 2))
    for k in range(RUNGS):
        teams = {int(plan.device[f"{phase}{k}{side}"][1:]) // 2 for phase in ("forward", "backward") for side in "ab"}
        assert len(teams) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(0.3, 1.2), st.booleans())
def test_its_schedules_run_keep_groups_together_and_plans_are_right(
    seed: int, devices: int, share: float, groups: bool
) -> None:
    graph = random_dag(seed, 30, groups=groups)
    made = sum(t.nbytes for op in graph.ops for t in op.outputs) + sum(op.persistent_bytes for op in graph.ops)
    problem = Problem(graph, cluster(devices, max(1, round(share * made))))
    a = problem.arrays
    for schedule in Teams().schedules(problem, seed):
        run, _ = evaluate(a, schedule)
        assert run.done == len(graph)
        assert all(len(np.unique(schedule.device[a.group == g])) == 1 for g in range(len(a.group_ptr) - 1))
    try:
        plan = Teams().place(graph, problem.cluster, seed=seed)
    except Infeasible:
        return
    assert not verify(graph, plan)
