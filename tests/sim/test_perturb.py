"""Plans under wrong costs, against closed forms."""

import pytest

from baechi.cost import Problem
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.placers import Single, make_plan
from baechi.placers.fixed import RoundRobin
from baechi.sim.perturb import sensitivity

TWO = Cluster((Device("a", 100), Device("b", 100)), Link(1.0, 1.0), contention="sequential")


def chain(n: int) -> Graph:
    ops = (
        Op(
            f"o{k}",
            "op",
            (f"t{k - 1}",) if k else (),
            (Tensor(f"t{k}", 4, seconds=None if k % 2 else 0.5),),
            seconds=1.0,
        )
        for k in range(n)
    )
    return Graph(tuple(ops), "chain")


def test_no_errors_change_nothing() -> None:
    problem = Problem(chain(6), TWO)
    plan = make_plan(RoundRobin(), problem, 0)
    found = sensitivity(problem, plan, 0.0, samples=3)
    assert found.least == found.mean == found.most == plan.predicted.step_seconds


def test_one_op_errs_by_a_uniform_factor() -> None:
    """Its mean is 1 and it stays within the spread."""
    problem = Problem(chain(1), TWO)
    found = sensitivity(problem, make_plan(Single(), problem, 0), 0.3, samples=4000)
    assert 0.7 <= found.least < 0.705
    assert 1.295 < found.most <= 1.3
    assert found.mean == pytest.approx(1.0, abs=0.01)


def test_a_chain_over_two_devices_stays_within_the_spread_and_the_seed_fixes_it() -> None:
    problem = Problem(chain(8), TWO)
    plan = make_plan(RoundRobin(), problem, 0)
    one, two = (sensitivity(problem, plan, 0.2, samples=100, seed=5) for _ in range(2))
    step = plan.predicted.step_seconds
    assert one == two != sensitivity(problem, plan, 0.2, samples=100, seed=6)
    assert 0.8 * step <= one.least < one.mean < one.most <= 1.2 * step
