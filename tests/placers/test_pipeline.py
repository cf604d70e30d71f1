"""Pipelines of equal stages take the closed forms; any step of micro-batches gets schedules that run."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baechi.cost import Problem
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.models.graphs import random_dag
from baechi.passes import microbatches
from baechi.placers.pipeline import pipeline_schedules
from baechi.sim.evaluate import Schedule, evaluate, score
from baechi.sim.load import loads

DEVICES, COPIES = 4, 8
FORWARD, BACKWARD, WEIGHT = 1.0, 1.0, 1.0


def chain(stages: int, *, apart: bool) -> Graph:
    """Equal stages of 1 s forward and 2 s backward for each device and micro-batch; `apart`: in two ops of 1 s."""
    scale = COPIES * DEVICES / stages
    ops = [
        Op(f"f{i}", "mm", (f"x{i - 1}",) if i else (), (Tensor(f"x{i}", 8 * COPIES),), seconds=FORWARD * scale)
        for i in range(stages)
    ]
    for i in reversed(range(stages)):
        gradient = (f"g{i + 1}",) if i < stages - 1 else ()
        seconds = BACKWARD * scale if apart else (BACKWARD + WEIGHT) * scale
        made = Tensor(f"g{i}", 0)
        ops.append(Op(f"b{i}", "mm", (*gradient, f"x{i}"), (made,), phase="backward", seconds=seconds, forward=f"f{i}"))
        if apart:
            weight = Op(f"w{i}", "mm", (*gradient, f"x{i}"), phase="backward", seconds=WEIGHT * scale, forward=f"f{i}")
            ops.append(weight)
    return microbatches(Graph(tuple(ops)), COPIES)


def problem_of(graph: Graph, devices: int = DEVICES, seconds: float = 0.0) -> Problem:
    cluster = Cluster(tuple(Device(f"d{i}", 1 << 40) for i in range(devices)), Link(seconds, 1e15))
    return Problem(graph, cluster)


def outcomes(problem: Problem) -> list[tuple[float, tuple[int, ...], Schedule]]:
    """Seconds and peaks of each schedule."""
    found = []
    for schedule in pipeline_schedules(problem):
        run, _ = evaluate(problem.arrays, schedule)
        assert run.done == len(problem.graph)
        found.append((run.makespan / 1e12, tuple(run.peak.tolist()), schedule))
    return found


def test_one_stage_a_device_takes_the_time_of_gpipe_with_the_memory_of_one_forward_one_backward() -> None:
    found = outcomes(problem_of(chain(DEVICES, apart=False)))
    wanted = (COPIES + DEVICES - 1) * (FORWARD + BACKWARD + WEIGHT)
    contiguous = {peaks for seconds, peaks, _ in found if seconds == pytest.approx(wanted)}
    assert min(seconds for seconds, *_ in found) == pytest.approx(wanted)
    # Activations of D - d micro-batches, and behind the first device one that has just come.
    assert (32, 24 + 8, 16 + 8, 8 + 8) in contiguous
    assert (64, 64 + 8, 64 + 8, 64 + 8) in contiguous  # fill first holds them all


@pytest.mark.parametrize("rounds", [2, 4])
def test_interleaved_stages_shrink_the_bubble(rounds: int) -> None:
    found = outcomes(problem_of(chain(DEVICES * rounds, apart=False)))
    work = COPIES * (FORWARD + BACKWARD + WEIGHT)
    wanted = work + (DEVICES - 1) * (FORWARD + BACKWARD + WEIGHT) / rounds
    assert min(seconds for seconds, *_ in found) == pytest.approx(wanted)
    assert work / wanted > 0.8  # of the throughput without any bubble
    thrifty = min(max(peaks) for seconds, peaks, _ in found if seconds == pytest.approx(wanted))
    # Megatron-LM: activations of 2 (D - 1) + (v - 1) D + 1 stages on the first device, and one that has just come.
    assert thrifty == 8 * (2 * (DEVICES - 1) + (rounds - 1) * DEVICES + 2)


def test_gradients_of_weights_fill_the_bubble() -> None:
    """ZB-H1 leaves a bubble of (D - 1)(f + b - w) where one forward, one backward has (D - 1)(f + b + w)."""
    contiguous = outcomes(problem_of(chain(DEVICES, apart=True)))
    work = COPIES * (FORWARD + BACKWARD + WEIGHT)
    wanted = work + (DEVICES - 1) * (FORWARD + BACKWARD - WEIGHT)
    assert min(seconds for seconds, *_ in contiguous) == pytest.approx(wanted)
    thrifty = min(max(peaks) for seconds, peaks, _ in contiguous if seconds == pytest.approx(wanted))
    assert thrifty == 8 * (DEVICES + 1)  # no device holds more than the first, but for what has just come
    interleaved = outcomes(problem_of(chain(16, apart=True)))
    assert work / min(seconds for seconds, *_ in interleaved) > 0.95


def test_dear_links_leave_the_pipeline_close_to_the_ideal() -> None:
    """A transfer takes a tenth of a stage's forward work: it delays the fill, not the steady state."""
    found = min(seconds for seconds, *_ in outcomes(problem_of(chain(DEVICES, apart=False), seconds=0.1)))
    assert found <= (COPIES + DEVICES - 1) * (FORWARD + BACKWARD + WEIGHT) * 1.05


def test_a_step_without_micro_batches_has_no_pipeline() -> None:
    graph = Graph((Op("a", "mm", seconds=1.0), Op("b", "mm", seconds=1.0)))
    assert list(pipeline_schedules(problem_of(graph))) == []
    assert list(pipeline_schedules(problem_of(microbatches(graph, 2), devices=1))) == []


def test_slow_devices_get_less() -> None:
    graph = chain(16, apart=False)
    devices = tuple(Device(f"d{i}", 1 << 40, speed=speed) for i, speed in enumerate((1.0, 3.0)))
    problem = Problem(graph, Cluster(devices, Link(0.0, 1e15)))
    best = min(pipeline_schedules(problem), key=lambda s: score(problem.arrays, s)).device
    load = loads(problem.arrays, best) / 1e12
    assert load.max() <= 1.3 * problem.arrays.ticks.min(axis=1).sum() / 1e12 * 3 / 4


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(2, 4))
def test_every_schedule_of_any_graph_runs(seed: int, copies: int, devices: int) -> None:
    graph = microbatches(random_dag(seed, 30), copies)
    problem = problem_of(graph, devices)
    a: Any = problem.arrays
    for schedule in pipeline_schedules(problem):
        assert sorted(schedule.sequence.tolist()) == list(range(len(graph)))
        position = np.argsort(schedule.sequence)
        for i in range(len(graph)):
            before = a.t_op[a.in_t[a.in_ptr[i] : a.in_ptr[i + 1]]]
            assert (position[before] < position[i]).all()
        for ops in np.split(a.group_op, a.group_ptr[1:-1]):
            assert len(set(schedule.device[ops].tolist())) == 1
        assert evaluate(a, schedule)[0].done == len(graph)
