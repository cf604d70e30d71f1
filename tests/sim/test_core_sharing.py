"""Devices that share the cores of a host, against closed forms of processor sharing."""

from fractions import Fraction
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baechi.cost import Problem
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.ir.timeline import Timeline
from baechi.sim import simulate


def side_by_side(reference: ModuleType, seconds: list[float], hosts: list[str], cores: dict[str, int]) -> Timeline:
    """Independent ops, each on a device of its own."""
    graph = Graph(tuple(Op(f"op{k}", "op", seconds=s) for k, s in enumerate(seconds)))
    cluster = Cluster(tuple(Device(f"d{k}", 8, host=host) for k, host in enumerate(hosts)), cores=cores)
    device = {f"op{k}": f"d{k}" for k in range(len(seconds))}
    order = {d: (op,) for op, d in device.items()}
    return simulate(Problem(graph, cluster), reference.as_plan(graph, cluster, device, order, ()))


def ends(timeline: Timeline, count: int) -> list[float]:
    return [timeline.span[f"op{k}"].end for k in range(count)]


@pytest.mark.parametrize(("k", "c"), [(1, 1), (2, 1), (3, 1), (3, 2), (4, 3), (5, 2), (4, 4), (2, 8)])
def test_k_equal_ops_on_c_cores_take_k_over_c_times_as_long(reference: ModuleType, k: int, c: int) -> None:
    timeline = side_by_side(reference, [3e-3] * k, ["h"] * k, {"h": c})
    assert ends(timeline, k) == pytest.approx([3e-3 * max(1.0, k / c)] * k, abs=1e-11)


def processor_sharing(seconds: list[Fraction], cores: int) -> list[Fraction]:
    """Ends of jobs that begin together and share `cores` equally, none faster than alone."""
    now, done = Fraction(0), Fraction(0)
    found = dict.fromkeys(range(len(seconds)), Fraction(0))
    left = sorted(found, key=lambda i: seconds[i])
    while left:
        first = left.pop(0)
        now += (seconds[first] - done) * max(Fraction(1), Fraction(len(left) + 1, cores))
        done = seconds[first]
        found[first] = now
    return list(found.values())


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=6), st.integers(1, 7))
def test_unequal_ops_share_as_in_the_closed_form(reference: ModuleType, micros: list[int], cores: int) -> None:
    timeline = side_by_side(reference, [m / 10**6 for m in micros], ["h"] * len(micros), {"h": cores})
    wanted = processor_sharing([Fraction(m, 10**6) for m in micros], cores)
    assert ends(timeline, len(micros)) == pytest.approx([float(w) for w in wanted], abs=1e-10)


@given(st.lists(st.tuples(st.integers(1, 1000), st.sampled_from("ab")), min_size=1, max_size=7))
def test_hosts_do_not_slow_each_other(reference: ModuleType, jobs: list[tuple[int, str]]) -> None:
    """One with two cores, one without a limit, at the same time."""
    timeline = side_by_side(reference, [m / 10**6 for m, _ in jobs], [h for _, h in jobs], {"a": 2})
    shared = iter(processor_sharing([Fraction(m, 10**6) for m, h in jobs if h == "a"], 2))
    wanted = [float(next(shared)) if h == "a" else m / 10**6 for m, h in jobs]
    assert ends(timeline, len(jobs)) == pytest.approx(wanted, abs=1e-10)


def test_a_copy_takes_a_core_too(reference: ModuleType) -> None:
    """One core: a (1 s) alone, then its copy (2 s) beside b (3 s): the copy ends at 1 + 4, b at 5 + 1."""
    graph = Graph(
        (
            Op("a", "op", outputs=(Tensor("x", 1, seconds=2.0),), seconds=1.0),
            Op("b", "op", seconds=3.0),
            Op("c", "op", ("x",), seconds=1.0),
        )
    )
    device = {"a": "d0", "b": "d0", "c": "d1"}
    order = {"d0": ("a", "b"), "d1": ("c",)}
    for host, wanted in (("h", 7.0), ("other", 4.0)):
        cluster = Cluster((Device("d0", 8, host="h"), Device("d1", 8, host=host)), Link(), cores={"h": 1})
        plan = reference.as_plan(graph, cluster, device, order, (("x", "d0", "d1"),))
        timeline = simulate(Problem(graph, cluster), plan)
        assert timeline.transfers[0].start == 1.0
        assert timeline.step_seconds == pytest.approx(wanted, abs=1e-11)
