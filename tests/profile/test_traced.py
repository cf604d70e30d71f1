"""What processes note becomes one timeline."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baechi.backends.plans import plan_in_program_order
from baechi.ir.cluster import Cluster, Device
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.ir.timeline import OpSpan, Timeline
from baechi.planned import timeline_of
from baechi.profile.measured import Measured
from baechi.profile.profiled import Profiled
from baechi.profile.traced import Notes, StepNotes, busy_steps, op_times, own_seconds, timelines

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
    first = StepNotes(10.0, 13.5, (11.0, 13.0, 13.2, 0.0), {("a", "cpu:1"): 13.0}, {}, {})
    other = StepNotes(
        11.0 + day,
        16.0 + day,
        (14.0 + day, 15.0 + day, 15.0 + day, 0.4, 15.0 + day, 16.0 + day, 16.0 + day, 0.0),
        {},
        {("a", "cpu:0"): 13.2 + day},
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
    assert [(s.tensor, s.start, s.end, s.nbytes) for s in step.transfers] == [
        ("a", pytest.approx(3.2), 3.5, 4)
    ]  # sent at 3.0, when there was no room for it
    assert step.step_seconds == 6.0
    assert step.memory == {"cpu:0": ((0.0, 8), (3.0, 12), (6.0, 8))}


def test_machines_begin_together() -> None:
    (step,) = timelines(GRAPH, PLAN, notes(apart=True))
    assert (step.span["a"].start, step.span["b"].start) == (1.0, 3.0)


def test_times_of_a_key_keep_their_sum() -> None:
    (step,) = timelines(GRAPH, PLAN, notes())
    assert op_times(GRAPH, PLAN.cluster, [step]) == {"unit": pytest.approx({"mm": 1.5, "mm(c)": 1.0})}


def test_a_device_is_busy_with_what_it_sends_and_makes_ready_to_receive() -> None:
    (step,) = busy_steps(notes())
    assert op_times(GRAPH, PLAN.cluster, [step])["unit"] == pytest.approx({"mm": (2.2 + 1.4) / 2, "mm(c)": 1.0})


def test_of_the_steps_the_middle_half_counts() -> None:
    (step,) = timelines(GRAPH, PLAN, notes())

    def longer(seconds: float) -> Timeline:
        return Timeline(tuple(replace(span, end=span.end + seconds) if span.op == "c" else span for span in step.ops))

    steps = [longer(seconds) for seconds in (0, 1, 90, 2, 0, 3, 4)]
    assert op_times(GRAPH, PLAN.cluster, steps)["unit"]["mm(c)"] == pytest.approx(1 + (1 + 2 + 3) / 3)


def test_ops_that_shared_cores_would_have_taken_less_alone() -> None:
    cluster = Cluster(tuple(Device(f"cpu:{i}", 8, host=f"h{i // 3}") for i in range(4)), cores={"h0": 2})
    spans = (("a", 0, 0.0, 3.0), ("b", 1, 0.0, 2.0), ("c", 2, 0.0, 2.0), ("d", 3, 0.0, 2.0), ("e", 0, 3.0, 4.0))
    step = Timeline(tuple(OpSpan(op, f"cpu:{d}", start, end) for op, d, start, end in spans))
    assert own_seconds(step, cluster) == pytest.approx([2 / 3 * 2 + 1, 4 / 3, 4 / 3, 2, 1])


@given(
    times=st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=5),
    cores=st.integers(1, 4),
    threads=st.integers(1, 2),
)
def test_the_simulator_slows_ops_down_from_the_time_of_their_own(
    times: list[list[int]], cores: int, threads: int
) -> None:
    cluster = Cluster(tuple(Device(f"cpu:{d}", 8, threads=threads) for d in range(len(times))), cores={"host0": cores})
    alone = {f"op{d}.{i}": (d, float(t)) for d, row in enumerate(times) for i, t in enumerate(row)}
    graph = Graph(tuple(Op(name, "mm", seconds=t) for name, (_, t) in alone.items()))
    plan = plan_in_program_order(graph, {name: f"cpu:{d}" for name, (d, _) in alone.items()}, cluster=cluster)
    step = timeline_of(graph, plan)
    own = {span.op: seconds for span, seconds in zip(step.ops, own_seconds(step, cluster), strict=True)}
    assert own == pytest.approx({name: t for name, (_, t) in alone.items()}, abs=1e-9)


def test_outliers_are_named() -> None:
    steps = (1.0, 1.1, 1.0, 1.05, 9.0, 1.0, 0.95)
    found = Profiled(Measured(1.0, steps, 0.1, (), {}), timelines(GRAPH, PLAN, notes())[0], 0.0, {})
    assert found.outliers == (4,)
