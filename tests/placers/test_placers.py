"""What every placer promises, judged by the reference simulator."""

import dataclasses
import json
from collections.abc import Iterator
from types import ModuleType

import pytest

from baechi.errors import BaechiError, Infeasible
from baechi.ir.cluster import CONTENTIONS, Cluster, Contention, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.json import plan_to_dict
from baechi.ir.op import Op, Tensor
from baechi.ir.plan import Plan
from baechi.ir.verify import verify
from baechi.models.graphs import chain, fork_join, random_dag
from baechi.placers import PLACERS, Exact, Expert, Metis, Placer, Sct, check_placer, get_placer

NAMES = sorted(name for name in PLACERS if name != "metis" or Metis.available())
LINK = Link(2e-6, 1e8)


def make(name: str) -> Placer:
    options: dict[str, dict[str, float]] = {"auto": {"work": 2e3}, "exact": {"groups": 10}}
    return get_placer(name, **options.get(name, {}))


def with_experts(graph: Graph, devices: int) -> Graph:
    return graph.with_ops(dataclasses.replace(op, expert=i % devices) for i, op in enumerate(graph.ops))


def a_graph(seed: int, n: int = 40, *, groups: bool = False) -> Graph:
    return with_experts(random_dag(seed, n, groups=groups, shuffled=seed % 2 == 0), 3)


def equal_devices(count: int, nbytes: int = 1 << 40, contention: Contention = "duplex") -> Cluster:
    return Cluster(tuple(Device(f"d{k}", nbytes) for k in range(count)), LINK, contention=contention)


def serial(graph: Graph) -> float:
    return sum(op.seconds or 0.0 for op in graph.ops)


def check(reference: ModuleType, graph: Graph, plan: Plan) -> None:
    """Every promise that does not depend on the placer."""
    assert verify(graph, plan) == ()
    peaks = reference.peaks_of(graph, plan)
    assert peaks == plan.predicted.peak_bytes
    assert all(peaks[d.name] <= d.cap for d in plan.cluster.devices)
    assert reference.makespan_of(graph, plan) == round(plan.predicted.step_seconds * 10**12)
    for ops in graph.groups.values():
        assert len({plan.device[op.name] for op in ops}) == 1
    assert plan.predicted.step_seconds >= plan.bounds.step_seconds * (1 - 1e-12)


def attempts(placer: Placer, graph: Graph, cluster: Cluster) -> Iterator[Plan]:
    """The plan, if one was found; otherwise the error says whether it is proved."""
    failure: Infeasible | None = None
    try:
        yield placer.place(graph, cluster)
    except Infeasible as error:
        failure = error
    if failure is not None:
        assert (failure.code, failure.proved) in (("B501", True), ("B502", False))
        assert failure.exit_code == 1
        assert failure.help


@pytest.mark.parametrize("name", NAMES)
def test_the_conformance_suite(name: str) -> None:
    check_placer(make(name))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("contention", CONTENTIONS)
def test_plans_are_what_they_say(reference: ModuleType, name: str, contention: Contention) -> None:
    for seed in range(12):
        graph = a_graph(seed, groups=seed % 3 == 0)
        check(reference, graph, make(name).place(graph, equal_devices(3, contention=contention)))


@pytest.mark.parametrize("name", NAMES)
def test_devices_that_differ_in_speed_memory_and_links(reference: ModuleType, name: str) -> None:
    placer, plans = make(name), 0
    if isinstance(placer, Exact):
        placer = dataclasses.replace(placer, seconds=5.0)  # what it promises does not hang on how long it looks
    for seed in range(12):
        graph = a_graph(seed, groups=seed % 3 == 0)
        whole = make("single").place(graph, equal_devices(1)).predicted.peak_bytes["d0"]
        devices = (Device("small", whole // 2, speed=4.0), Device("large", whole), Device("slow", whole, speed=0.5))
        links = {("small", "large"): Link(1e-6, 1e9), ("large", "small"): Link(5e-6, 5e8)}
        for plan in attempts(placer, graph, Cluster(devices, LINK, links)):
            check(reference, graph, plan)
            plans += 1
    assert plans >= (1 if name in ("expert", "round-robin") else 6)


@pytest.mark.parametrize("name", NAMES)
def test_one_device_is_serial(reference: ModuleType, name: str) -> None:
    for seed in range(6):
        graph = a_graph(seed, groups=True)
        plan = make(name).place(graph, equal_devices(1))
        check(reference, graph, plan)
        assert plan.predicted.step_seconds == pytest.approx(serial(graph), abs=1e-12)
        assert plan.transfers == ()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_plan_byte_for_byte(name: str) -> None:
    for seed in range(4):
        graph, cluster = a_graph(seed, groups=seed == 3), equal_devices(3)
        one, two = (plan_to_dict(make(name).place(graph, cluster)) for _ in range(2))
        for data in (one, two):
            del data["placer"]["seconds"]
        assert json.dumps(one) == json.dumps(two)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "graph",
    [
        Graph((Op("only", "op", seconds=1.0, expert=0),), "one op"),
        Graph((Op("only", "op", seconds=0.0, expert=0),), "one free op"),
        Graph(
            (Op("p", "parameter", outputs=(Tensor("t", 4, held=4),), persistent_bytes=4, seconds=0.0, expert=0),), "p"
        ),
        Graph(tuple(Op(f"op{k}", "op", seconds=0.0, expert=0) for k in range(3)), "nothing takes time"),
        Graph((Op("a", "op", seconds=1.0, expert=0), Op("b", "op", after=("a",), seconds=1.0, expert=1)), "control"),
    ],
    ids=lambda graph: graph.name,
)
def test_the_smallest_graphs(reference: ModuleType, name: str, graph: Graph) -> None:
    for count in (1, 3):
        check(reference, graph, make(name).place(graph, equal_devices(count)))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "expert"])
def test_nothing_to_place_takes_no_time(name: str) -> None:
    plan = make(name).place(Graph(()), equal_devices(2))
    assert plan.predicted.step_seconds == 0.0
    assert plan.predicted.peak_bytes == {"d0": 0, "d1": 0}


@pytest.mark.parametrize("name", NAMES)
def test_impossible_is_said_and_proved(name: str) -> None:
    graph = Graph((Op("big", "op", persistent_bytes=9, seconds=1.0, expert=0),))
    with pytest.raises(Infeasible) as caught:
        make(name).place(graph, equal_devices(2, 8))
    assert caught.value.proved
    assert caught.value.code == "B501"
    assert "big" in caught.value.what or "persists" in caught.value.what


@pytest.mark.parametrize("name", ["single", "round-robin", "expert"])
def test_a_rule_that_does_not_fit_is_not_called_impossible(name: str) -> None:
    """Two ops of 6 bytes fit two devices of 10, but not by these rules."""
    ops = tuple(Op(f"op{k}", "op", persistent_bytes=6 * (k != 1), seconds=1.0, expert=0) for k in range(3))
    with pytest.raises(Infeasible) as caught:
        make(name).place(Graph(ops), equal_devices(2, 10))
    assert not caught.value.proved
    assert caught.value.code == "B502"


@pytest.mark.parametrize("seed", range(10))
def test_auto_is_never_worse(reference: ModuleType, seed: int) -> None:
    """Than any placer that it asks, on devices that differ, with and without enough memory."""
    graph = a_graph(seed, groups=seed % 2 == 0)
    whole = make("single").place(graph, equal_devices(1)).predicted.peak_bytes["d0"]
    for share in (2.0, 0.7, 0.5):
        devices = tuple(Device(f"d{k}", int(whole * share), speed=s) for k, s in enumerate((1.0, 2.0, 1.0)))
        cluster = Cluster(devices, LINK)
        for plan in attempts(make("auto"), graph, cluster):
            check(reference, graph, plan)
            for name in ("single", "contiguous", "m-topo", "m-etf", "m-sct"):
                for other in attempts(make(name), graph, cluster):
                    assert plan.predicted.step_seconds <= other.predicted.step_seconds, name
            break
        else:
            for name in ("single", "contiguous", "m-topo", "m-etf", "m-sct"):
                assert not list(attempts(make(name), graph, cluster)), f"auto found nothing, {name} did"


def test_the_single_device_is_the_fastest_that_fits() -> None:
    graph = chain(5, seconds=1.0, nbytes=10)
    devices = (Device("slow", 100), Device("fast", 100, speed=2.0), Device("tiny", 1, speed=8.0))
    plan = make("single").place(graph, Cluster(devices))
    assert set(plan.device.values()) == {"fast"}
    assert plan.predicted.step_seconds == 2.5


def test_round_robin_takes_turns() -> None:
    plan = make("round-robin").place(chain(6), equal_devices(3))
    assert [plan.device[f"op{k}"] for k in range(6)] == ["d0", "d1", "d2", "d0", "d1", "d2"]


def test_contiguous_cuts_a_chain_once_for_each_device() -> None:
    """Ten equal ops that persist alike on two devices that hold six: program order in two runs."""
    ops = tuple(dataclasses.replace(op, persistent_bytes=1 << 20) for op in chain(10, nbytes=8).ops)
    plan = make("contiguous").place(Graph(ops), equal_devices(2, 6 << 20))
    devices = [plan.device[f"op{k}"] for k in range(10)]
    assert devices == sorted(devices)
    assert 4 <= devices.count("d0") <= 6


def test_the_expert_split_is_kept(reference: ModuleType) -> None:
    graph = with_experts(fork_join(3, 2), 2)
    plan = Expert().place(graph, equal_devices(2))
    assert plan.device == {op.name: f"d{i % 2}" for i, op in enumerate(graph.ops)}
    check(reference, graph, plan)


def test_ops_without_an_expert_follow_what_they_read() -> None:
    x = Tensor("x", 8)
    graph = Graph(
        (
            Op("a", "op", outputs=(x,), seconds=1.0, expert=1),
            Op("b", "op", ("x",), (Tensor("y", 8),), seconds=1.0),
            Op("c", "op", ("y",), seconds=1.0, group="g"),
            Op("d", "op", seconds=1.0, expert=0, group="g"),
        )
    )
    assert Expert().place(graph, equal_devices(2)).device == {"a": "d1", "b": "d1", "c": "d0", "d": "d0"}


def test_without_an_expert_there_is_nothing_to_keep() -> None:
    with pytest.raises(BaechiError) as caught:
        Expert().place(chain(3), equal_devices(2))
    assert caught.value.code == "B504"


def test_unknown_placers_and_options_are_errors() -> None:
    with pytest.raises(BaechiError) as caught:
        get_placer("m-best")
    assert caught.value.code == "B505"
    assert "m-etf" in caught.value.help
    with pytest.raises(BaechiError) as caught:
        get_placer("m-sct", treshold=0.5)
    assert caught.value.code == "B505"
    assert "treshold" in caught.value.what
    assert get_placer("m-sct", threshold=0.5) == Sct(threshold=0.5)


def test_registry_names() -> None:
    assert all(PLACERS[name].name == name for name in PLACERS)
