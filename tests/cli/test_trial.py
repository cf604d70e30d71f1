"""Which plan is kept after trials: profiles with known op times stand in for the workers'."""

from types import SimpleNamespace
from typing import Any

import pytest

from baechi.cli import carriers, trial
from baechi.cli.subject import Subject
from baechi.cli.trial import Made, best_tried
from baechi.cost import CostTable
from baechi.errors import BaechiError
from baechi.ir.cluster import Cluster, Device
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.placers import Expert, RoundRobin
from baechi.target import load_target

TWO = Cluster((Device("cpu:0", 1 << 30, type="cpu"), Device("cpu:1", 1 << 30, type="cpu")))
PAIR = Graph(
    (
        Op("x", "op", outputs=(Tensor("x"),), key="x", expert=0),
        Op("y", "op", outputs=(Tensor("y"),), key="y", expert=1),
        Op("z", "op", ("x",), key="z", expert=0),
    )
)


def kept(
    monkeypatch: pytest.MonkeyPatch, first: dict[str, float], second: dict[str, float] | None, promised: float
) -> tuple[Made, list[str], list[Any]]:
    """What is kept, the placers of the plans that were tried, and the tables that were written."""
    trials, written, times = [], [], iter((first, second))
    table = CostTable({"cpu": {"x": 1.0, "y": 1.0, "z": 1.0}})
    subject = Subject(load_target("models:mlp"), PAIR, TWO, table, 0.0)

    def profile(plan: Any, *_: object) -> Any:
        trials.append(plan.placer.name)
        ops = next(times)
        if ops is None:
            raise BaechiError("B610", "this machine has 1 MiB")
        return None, SimpleNamespace(ops={"cpu": ops}, measured=SimpleNamespace(step_seconds=1.0))

    def again(known: Subject) -> Made:
        assert known.table is not None
        assert known.table.seconds["cpu"] == first
        costs = CostTable({"cpu": dict.fromkeys("xyz", promised / 2)})
        return Made(known, PAIR, RoundRobin().place(PAIR, TWO, table=costs))

    monkeypatch.setattr(carriers, "_PYTORCH", carriers._PYTORCH._replace(profile=profile))
    monkeypatch.setattr(trial, "carrier_of", lambda _: carriers._PYTORCH)
    monkeypatch.setattr("baechi.profile.tables.write_table", lambda table, _: written.append(table.seconds["cpu"]))
    made = Made(subject, PAIR, Expert().place(PAIR, TWO, table=table))
    return best_tried(made, again, seed=0, table_file=None), trials, written


def test_a_plan_that_promises_little_is_not_even_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """x and z take 4 s on one device; 3.9 s is within 5 % of it."""
    ops = {"x": 2.0, "y": 3.0, "z": 2.0}
    made, trials, written = kept(monkeypatch, ops, None, promised=3.9)
    assert trials == ["expert"]
    assert (made.plan.placer.name, made.plan.predicted.step_seconds) == ("expert", 4.0)
    assert made.plan.bounds.step_seconds == 4.0  # x, then z
    assert written == [ops]


def test_a_plan_that_promises_more_than_it_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    first = {"x": 2.0, "y": 3.0, "z": 2.0}
    made, trials, written = kept(monkeypatch, first, {"x": 3.0, "y": 3.0, "z": 3.0}, promised=2.0)
    assert trials == ["expert", "round-robin"]
    assert (made.plan.placer.name, made.plan.predicted.step_seconds) == ("expert", 4.0)
    assert written == [first]


def test_a_plan_that_keeps_what_it_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    second = {"x": 1.0, "y": 1.0, "z": 1.5}
    made, trials, written = kept(monkeypatch, {"x": 2.0, "y": 3.0, "z": 2.0}, second, promised=2.0)
    assert trials == ["expert", "round-robin"]
    assert (made.plan.placer.name, made.plan.predicted.step_seconds) == ("round-robin", 2.5)
    assert written == [second]


def test_a_second_trial_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first = {"x": 2.0, "y": 3.0, "z": 2.0}
    made, trials, written = kept(monkeypatch, first, None, promised=2.0)
    assert trials == ["expert", "round-robin"]
    assert (made.plan.placer.name, made.plan.predicted.step_seconds) == ("expert", 4.0)
    assert written == [first]
