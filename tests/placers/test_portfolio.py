"""The default placer: never worse than its members, it stops when it should, and keeps what it has."""

from collections.abc import Callable

import numpy as np
import pytest

from baechi.cost import Problem
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.plan import Objective
from baechi.models.graphs import random_dag
from baechi.placers import PLACERS, Auto, Progress, get_placer, make_plan, portfolio
from baechi.sim.evaluate import plan_schedule
from baechi.sim.perturb import perturbed_ticks

MEMBERS = ("single", "contiguous", "m-topo", "m-etf", "m-sct", "heft")


def make_problem(seed: int, n: int = 40, objective: Objective = "latency") -> Problem:
    cluster = Cluster(tuple(Device(f"d{k}", 1 << 30) for k in range(3)), Link(1e-6, 1e8), contention="duplex")
    return Problem(random_dag(seed, n, groups=seed % 2 == 0), cluster, None, objective)


@pytest.mark.parametrize("objective", ["latency", "throughput"])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_never_worse_than_any_member_and_never_better_than_the_bound(seed: int, objective: Objective) -> None:
    problem = make_problem(seed, objective=objective)
    found = make_plan(Auto(work=1e6), problem, 0)
    assert found.bounds.step_seconds <= found.objective_seconds * (1 + 1e-9)
    for name in MEMBERS:
        assert name in PLACERS
        assert found.objective_seconds <= make_plan(get_placer(name), problem, 0).objective_seconds


def test_progress_only_gets_better() -> None:
    seen: list[Progress] = []
    plan = make_plan(Auto(work=1e6), make_problem(1), 0, seen.append)
    ticks = [one.ticks for one in seen if one.ticks is not None]
    assert ticks == sorted(ticks, reverse=True)
    assert ticks[-1] / 1e12 == pytest.approx(plan.predicted.step_seconds)
    assert all(one.bound > 0 and one.gap is not None and one.gap >= -1e-9 for one in seen)


def test_it_stops_at_the_gap_that_is_good_enough() -> None:
    seen: list[Progress] = []
    make_plan(Auto(gap=1e6), make_problem(1), 0, seen.append)
    assert len(seen) == 1


@pytest.mark.parametrize("wrapped", [0, 1, 3])
def test_interrupted_it_returns_the_best_so_far(monkeypatch: pytest.MonkeyPatch, wrapped: int) -> None:
    """Compiled code wraps what Ctrl-C raises in system errors."""
    problem = make_problem(2)
    before = make_plan(Auto(work=0), problem, 0)

    def interrupt(*_: object, **__: object) -> None:
        error: BaseException = KeyboardInterrupt()
        for _wrapping in range(wrapped):
            try:
                raise SystemError from error
            except SystemError as around:
                error = around
        raise error

    monkeypatch.setattr(portfolio, "improve", interrupt)
    assert make_plan(Auto(), problem, 0).predicted == before.predicted


def test_interrupted_before_anything_fits_it_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(portfolio, "_members", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_plan(Auto(), make_problem(2), 0)


def test_a_budget_pays_for_a_proof_of_a_small_graph() -> None:
    plan = make_plan(Auto(budget=20.0), make_problem(4, n=8), 0)
    assert plan.gap == pytest.approx(0.0, abs=1e-6)


def test_of_the_best_few_it_takes_the_one_that_bears_wrong_costs_best() -> None:
    problem = make_problem(3)

    def mean(plan_of: Callable[[], object]) -> float:
        schedule = plan_schedule(problem, plan_of())  # type: ignore[arg-type]
        return float(perturbed_ticks(problem.arrays, schedule._replace(sent=None), 0.3, 25, 0).mean())

    plain, robust = (mean(lambda p=p: make_plan(Auto(work=1e6, perturb=p), problem, 0)) for p in (0.0, 0.3))
    assert robust <= plain * (1 + 1e-9)


def test_the_same_seed_makes_the_same_plan() -> None:
    problem = make_problem(5)
    one, two = (make_plan(Auto(work=3e6), problem, 7) for _ in range(2))
    assert one.device == two.device
    assert one.order == two.order
    assert one.transfers == two.transfers


def test_time_by_which_a_budget_is_spent_is_told() -> None:
    watch = portfolio.Watch(budget=3.0, bound=10)
    assert not watch.done
    watch.began -= 4.0
    assert watch.done
    assert watch.seconds_left == 0.0
    assert np.isclose(watch.progress.seconds, 4.0, atol=1.0)
