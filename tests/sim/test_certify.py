"""Each argument of a bound against brute force, or against a closed form."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baechi.cost import Problem
from baechi.cost.problem import Arrays
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.models.graphs import chain, fork_join, random_dag
from baechi.sim import explain_infeasible
from baechi.sim.certify.flow import heaviest_least_load, least_load, network_of
from baechi.sim.certify.net import core_of, net_of
from baechi.sim.certify.packing import cannot_pack
from baechi.sim.certify.refute import refutes
from baechi.sim.certify.step import refuted_ticks
from baechi.sim.certify.windows import fresh
from baechi.sim.load import loads


def devices(count: int, cap: int = 1 << 40, seconds: float = 1e-6) -> Cluster:
    return Cluster(tuple(Device(f"d{k}", cap) for k in range(count)), Link(seconds, 1e12))


def step(graph: Graph, cluster: Cluster) -> float:
    """The refuted time, in seconds."""
    a = Problem(graph, cluster).arrays
    return refuted_ticks(net_of(a), len(a.cap), 1) / 1e12


def test_branches_that_are_too_dear_to_send_run_one_after_the_other() -> None:
    """Two devices cannot help: the bound is the time of one device."""
    graph = fork_join(4, 3, transfer_seconds=1.0)
    serial = sum(op.seconds or 0.0 for op in graph.ops)
    assert step(graph, devices(4)) == pytest.approx(serial, rel=1e-3)


def test_a_join_waits_for_the_cheaper_of_sending_and_sharing() -> None:
    """Two ops of 5 s that a third of 1 s reads: sending for 2 s beats running both here: 5 + 2 + 1."""
    ops = [Op(f"op{k}", "op", outputs=(Tensor(f"t{k}", 1),), seconds=5.0) for k in range(2)]
    graph = Graph((*ops, Op("join", "op", ("t0", "t1"), seconds=1.0)))
    assert step(graph, devices(2, seconds=2.0)) == pytest.approx(8.0, rel=1e-3)
    assert step(graph, devices(2, seconds=9.0)) == pytest.approx(11.0, rel=1e-3)


def test_ops_of_a_group_run_one_after_the_other() -> None:
    """Five independent ops of 1 s on five devices, but of one group, before an op of 2 s."""
    ops = [Op(f"op{k}", "op", outputs=(Tensor(f"t{k}", 1),), seconds=1.0, group="g") for k in range(5)]
    graph = Graph((*ops, Op("last", "op", tuple(f"t{k}" for k in range(5)), seconds=2.0)))
    assert step(graph, devices(5, seconds=0.0)) == pytest.approx(7.0, rel=1e-3)


def test_three_long_ops_on_two_devices() -> None:
    """Ops of 3 s that nothing ties: two of them must share a device, although 4.5 s of work are enough for each."""
    graph = Graph(tuple(Op(f"op{k}", "op", seconds=3.0) for k in range(3)))
    assert step(graph, devices(2)) == pytest.approx(6.0, rel=1e-3)


def test_what_cannot_share_a_device_for_its_memory_must_send() -> None:
    """A chain of two ops of 1 s; both on one device would hold 12 of 10 bytes, so 7 s of sending come in between."""
    first = Op("first", "op", outputs=(Tensor("t", 1),), seconds=1.0, persistent_bytes=6)
    graph = Graph((first, Op("second", "op", ("t",), seconds=1.0, persistent_bytes=6)))
    assert step(graph, devices(2, 10, seconds=7.0)) == pytest.approx(9.0, rel=1e-3)
    assert step(graph, devices(2, 12, seconds=7.0)) == pytest.approx(2.0, rel=1e-3)


def test_a_refuted_time_stays_refuted_when_shorter() -> None:
    a = Problem(random_dag(3, 40, groups=True), devices(3, seconds=1e-3)).arrays
    net = net_of(a)
    longest = refuted_ticks(net, 3, 1)
    for share in (0.2, 0.5, 0.9):
        core = core_of(net)
        assert refutes(core, fresh(core, True), int(longest * share), 3, 100, 64)
    assert not refutes(net, fresh(net, True), int(a.ticks[:, 0].sum()), 3, 100, 64)


def test_the_core_leaves_out_what_takes_no_time_at_the_ends() -> None:
    weight = Op("weight", "parameter", outputs=(Tensor("w", 1),), seconds=0.0)
    ops = (weight, Op("a", "op", ("w",), (Tensor("x", 1),), seconds=1.0), Op("b", "op", ("x",), seconds=0.0))
    core = core_of(net_of(Problem(Graph(ops), devices(2)).arrays))
    assert core.p.tolist() == [10**12]


def least_of_all_sets(a: Arrays, group: int) -> int:
    """The least load of a device, over all sets of groups that have the group on it."""
    groups = len(a.group_ptr) - 1
    others = [g for g in range(groups) if g != group]
    sets = (s for k in range(groups) for s in combinations(others, k))
    return min(int(loads(a, 1 - np.isin(a.group, (group, *s)).astype(np.int64))[0]) for s in sets)


@pytest.mark.parametrize("seed", range(20))
def test_the_least_load_is_the_least_over_all_sets_of_groups(seed: int) -> None:
    """With all else on one other device a set of groups has exactly the load that the network counts."""
    a = Problem(random_dag(seed, 7, groups=seed % 2 == 0), devices(2, seconds=[1e-5, 1e-4, 1e-3][seed % 3])).arrays
    network, nothing = network_of(a), np.zeros(len(a.group_ptr) - 1, np.int64)
    found = [least_load(network, g, nothing) for g in range(len(nothing))]
    assert found == [least_of_all_sets(a, g) for g in range(len(nothing))]
    assert heaviest_least_load(a) == max(found)


def test_a_chain_that_is_dear_to_cut_has_the_load_of_one_device() -> None:
    graph = chain(6, seconds=1.0, transfer_seconds=100.0)
    assert heaviest_least_load(Problem(graph, devices(3)).arrays) == 6 * 10**12


def by_hand(sizes: list[int], loose: int, rooms: list[int]) -> bool:
    """Whether no assignment of the sizes leaves enough room."""
    for to in product(range(len(rooms)), repeat=len(sizes)):
        left = np.array(rooms) - np.bincount(to, sizes, len(rooms)).astype(np.int64)
        if (left >= 0).all() and left.sum() >= loose:
            return False
    return True


@settings(max_examples=300)
@given(
    st.lists(st.integers(0, 12), max_size=6),
    st.integers(0, 10),
    st.lists(st.integers(1, 20), min_size=1, max_size=3),
)
def test_packing_is_exact_for_few_sizes(sizes: list[int], loose: int, rooms: list[int]) -> None:
    found = cannot_pack(np.array(sizes, np.int64), loose, np.array(rooms, np.int64))
    assert found == by_hand(sizes, loose, rooms)


def test_activations_that_wait_for_the_backward_pass_do_not_fit() -> None:
    """Six forward ops, whose 10 B each the backward ops read: at the turn all 60 B are alive, on any devices."""
    x, g = [f"x{k}" for k in range(6)], [f"g{k}" for k in range(7)]
    forward = [Op(f"f{k}", "op", tuple(x[max(0, k - 1) : k]), (Tensor(x[k], 10),), seconds=1.0) for k in range(6)]
    loss = Op("loss", "op", (x[5],), (Tensor(g[6], 0),), seconds=1.0)
    backward = [Op(f"b{k}", "op", (x[k], g[k + 1]), (Tensor(g[k], 0),), seconds=1.0) for k in reversed(range(6))]
    graph = Graph((*forward, loss, *backward))
    proof = explain_infeasible(Problem(graph, devices(2, 25)))
    assert proof is not None
    assert "what is alive while 'f5' runs takes 60 B" in proof.what
    assert explain_infeasible(Problem(graph, devices(2, 30))) is None


def test_groups_that_cannot_be_divided() -> None:
    """Three parameters of 6 B on two devices of 10 B: 18 of 20 B, but no two share a device."""
    graph = Graph(tuple(Op(f"op{k}", "parameter", persistent_bytes=6, seconds=0.0) for k in range(3)))
    proof = explain_infeasible(Problem(graph, devices(2, 10)))
    assert proof is not None
    assert "3 groups of up to 6 B" in proof.what
    assert "20.0% more" in proof.help
    assert explain_infeasible(Problem(graph, devices(2, 12))) is None
