"""What processes note becomes one timeline."""

from dataclasses import replace

import pytest

from baechi.backends.plans import plan_in_program_order
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.ir.timeline import Timeline
from baechi.profile.measured import Measured
from baechi.profile.profiled import Profiled
from baechi.profile.traced import Notes, StepNotes, op_times, timelines

GRAPH = Graph(
    (
        Op("w", "parameter", outputs=(Tensor("w", 8),), persistent_bytes=8),
        Op("a", "mm", ("w",), (Tensor("a", 4),), key="mm"),
        Op("b", "mm", ("a",), (Tensor("b", 4),), key="mm"),
        Op("c", "mm", ("b",), key="mm(c)"),
    )
)
PLAN = plan_in_program_order(GRAPH, {"w": "cpu:0", "a": "cpu:0", "b": "cpu:1", "c": "cpu:1"})


def notes(*, apart: bool = False) -> dict[str, Notes]:
    """A step of six seconds; the second process begins one second later, on another machine at another time of day."""
    day = 1000.0 if apart else 0.0
    first = StepNotes(10.0, 13.5, (11.0, 13.0), {("a", "cpu:1"): 13.0}, {})
    other = StepNotes(
        11.0 + day,
        16.0 + day,
        tuple(t + day for t in (14.0, 15.0, 15.0, 16.0)),
        {},
        {("a", "cpu:0"): 13.5 + day},
    )
    return {
        "cpu:0": Notes("here", ("a",), (first,), ((0.0, 8), (2.0, 12), (4.0, 8))),
        "cpu:1": Notes("there" if apart else "here", ("b", "c"), (other,), ()),
    }


def test_one_machine_has_one_clock() -> None:
    (step,) = timelines(GRAPH, PLAN, notes())
    assert {s.op: (s.device, s.start, s.end) for s in step.ops} == {
        "w": ("cpu:0", 0.0, 0.0),
        "a": ("cpu:0", 1.0, 3.0),
        "b": ("cpu:1", 4.0, 5.0),
        "c": ("cpu:1", 5.0, 6.0),
    }
    assert [(s.tensor, s.start, s.end, s.nbytes) for s in step.transfers] == [("a", 3.0, 3.5, 4)]
    assert step.step_seconds == 6.0
    assert step.memory == {"cpu:0": ((0.0, 8), (3.0, 12), (6.0, 8))}


def test_machines_begin_together() -> None:
    (step,) = timelines(GRAPH, PLAN, notes(apart=True))
    assert (step.span["a"].start, step.span["b"].start) == (1.0, 3.0)


def test_times_of_a_key_keep_their_sum() -> None:
    (step,) = timelines(GRAPH, PLAN, notes())
    assert op_times(GRAPH, [step]) == pytest.approx({"mm": 1.5, "mm(c)": 1.0})
    slow = Timeline(tuple(replace(span, end=span.end + 9) for span in step.ops if span.op != "w"))
    assert op_times(GRAPH, [step, slow, step]) == pytest.approx({"mm": 1.5, "mm(c)": 1.0})


def test_outliers_are_named() -> None:
    steps = (1.0, 1.1, 1.0, 1.05, 9.0, 1.0, 0.95)
    found = Profiled(Measured(1.0, steps, 0.1, (), {}), timelines(GRAPH, PLAN, notes())[0], 0.0, {})
    assert found.outliers == (4,)
