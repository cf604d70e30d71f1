"""DRACO against linear algebra: which optimum it finds, and what it drops."""

from random import Random
from typing import Any

import numpy as np
import pytest

from baechi.errors import BaechiError
from baechi.replicas.clocks import Distribution, parse_distribution
from baechi.replicas.conditions import Conditions
from baechi.replicas.draco import Draco
from baechi.replicas.draco_options import DracoOptions, draco_warning, receiver_weights
from baechi.replicas.events import Simulator
from baechi.replicas.peer import Arrays, Message, Snapshot
from baechi.replicas.topology import Topology, parse_topology, perron_weights, topology_of

N = 10
TARGETS = np.arange(N, dtype=float)


def random_digraph(seed: int) -> Topology:
    """A ring, so that everybody reaches everybody, and random edges."""
    chance = Random(seed)
    return topology_of(
        [sorted({(i + 1) % N, *(j for j in range(N) if j != i and chance.random() < 0.25)}) for i in range(N)]
    )


def world_of(
    graph: Topology, options: DracoOptions, eta: float, *, weights: Any = None, start: float = 0.0, **conditions: Any
) -> Simulator:
    q = receiver_weights(graph) if weights is None else weights
    n = graph.peers

    def make(i: int, life: int, joining: bool) -> Draco:
        row = {j: float(q[i, j]) for j in range(n) if j != i and q[i, j]}
        return Draco(i, (np.full(1, start),), row, graph.neighbours(i), n, options, incarnation=life, joining=joining)

    def step(i: int, arrays: Arrays, k: int) -> Arrays:
        return tuple(a + eta * (TARGETS[i] - a) for a in arrays)

    return Simulator(n, make, step, Conditions(**conditions))


def models(world: Simulator) -> np.ndarray:
    return np.array([peer.arrays[0][0] for peer in world.peers])


def long_run(world: Simulator, start: float, end: float, samples: int = 200) -> float:
    """The mean model over time, once it moves no more."""
    world.run(start)
    means = []
    for until in np.linspace(start, end, samples + 1)[1:]:
        world.run(float(until))
        means.append(models(world).mean())
    return float(np.mean(means))


def test_row_stochastic_mixing_finds_the_perron_weighted_optimum_and_push_sum_the_true_one() -> None:
    graph, eta, own = random_digraph(4), 0.01, 0.8
    perron = float(perron_weights(receiver_weights(graph)) @ TARGETS)
    assert abs(perron - 4.5) > 0.3
    weights = receiver_weights(graph, own)
    clocks = {"compute": Distribution(offset=1.0), "latency": parse_distribution("exp:0.05")}
    model = world_of(
        graph,
        DracoOptions("model", unify=False),
        eta,
        weights=weights,
        start=4.0,
        mixing=parse_distribution("exp:0.2"),
        **clocks,
    )
    assert long_run(model, 200.0, 400.0) == pytest.approx(perron, rel=0.01)
    # 5 messages a second move a receiver by a fifth of its row: dx/dt = (Q - I) x + eta (u - x)
    rest = np.linalg.solve(np.eye(N) - receiver_weights(graph) + eta * np.eye(N), eta * TARGETS)
    np.testing.assert_allclose(models(model), rest, atol=0.1)
    push = world_of(
        graph,
        DracoOptions("push-sum", unify=False),
        eta,
        start=4.3,
        mixing=Distribution(offset=0.2),
        compute=Distribution(offset=1.0),
    )
    assert long_run(push, 300.0, 400.0) == pytest.approx(4.5, rel=0.01)


def test_the_perron_weights_are_the_powers_of_the_matrix() -> None:
    weights = receiver_weights(random_digraph(4), own=0.5)
    np.testing.assert_allclose(np.linalg.matrix_power(weights, 400)[0], perron_weights(weights), rtol=1e-9)


def test_updates_with_a_unification_find_the_optimum_of_the_column_means() -> None:
    """Peer 0 is heard by all and hears all: half of what a hub drawn at random knows is its own, half its row's."""
    star = topology_of([list(range(1, N)), *([0] for _ in range(N - 1))])
    columns = (receiver_weights(star) + np.eye(N)).mean(axis=0)
    predicted = float(columns @ TARGETS / columns.sum())
    assert predicted == pytest.approx(2.5)
    options = DracoOptions("update", period=1.0)
    world = world_of(
        star, options, 0.005, start=3.0, compute=Distribution(offset=1.0), mixing=parse_distribution("exp:0.1")
    )
    assert long_run(world, 300.0, 1000.0) == pytest.approx(predicted, rel=0.06)
    assert "0.56 to 5.00 times" in (draco_warning(receiver_weights(star), options) or "")


def test_equal_weights_and_one_rhythm_are_synchronous_gradient_descent() -> None:
    options = DracoOptions("update", own=1 / N, unify=False)
    graph = parse_topology("complete", N)
    weights = receiver_weights(graph, own=1 / N)
    rhythm = {"compute": Distribution(offset=1.0), "mixing": Distribution(offset=0.45)}
    world = world_of(graph, options, 0.1, weights=weights, **rhythm)
    x = 0.0
    for k in range(1, 30):
        world.run(k + 0.49)
        x += 0.1 * (4.5 - x)
        np.testing.assert_allclose(models(world), x, rtol=1e-12)


def test_frequent_unification_keeps_the_models_equal_and_finds_the_mean() -> None:
    options = DracoOptions("update", period=0.02)
    graph = parse_topology("complete", N)
    steady = {"compute": Distribution(offset=1.0), "mixing": parse_distribution("exp:0.1")}
    world = world_of(graph, options, 0.02, start=4.0, **steady)
    assert long_run(world, 50.0, 150.0) == pytest.approx(4.5, rel=0.05)
    assert np.ptp(models(world)) < 0.3  # alone, they are 9 apart
    alone = world_of(graph, DracoOptions("update", unify=False), 0.05)
    alone.run(400.0)
    np.testing.assert_allclose(models(alone), TARGETS, atol=0.2)


def update(serial: int, sent: float, value: float = 1.0, peer: int = 1, kind: str = "update") -> Message:
    return Message(kind, peer, Snapshot(peer, 0, serial, serial, (np.array([value]),), {peer: serial}, 1.0, sent))


def test_what_is_too_old_or_over_the_cap_is_dropped_and_counted() -> None:
    peer = Draco(0, (np.zeros(1),), {1: 0.5, 2: 0.5}, (1,), 3, DracoOptions(max_delay=2.0, max_received=2, period=10.0))
    for serial, sent, now in ((1, 0.0, 1.0), (2, 0.0, 5.0), (3, 5.0, 6.0), (4, 6.0, 7.0), (5, 10.0, 11.0)):
        peer.receive(update(serial, sent), now)
    peer.receive(update(5, 11.0), 11.0)
    peer.receive(update(6, 11.0, np.nan), 11.0)
    assert peer.guard.refused == {"too old": 1, "over cap": 1, "replayed": 1, "not finite": 1}
    assert peer.arrays[0][0] == 3 * 0.5


def test_updates_that_overtake_each_other_all_count_once() -> None:
    peer = Draco(0, (np.zeros(1),), {1: 1.0}, (1,), 2)
    for serial in (3, 1, 3, 2, 5, 1, 4):
        peer.receive(update(serial, 0.0, 10.0**serial), 0.0)
    assert peer.arrays[0][0] == 111110.0
    assert peer.guard.refused == {"replayed": 2}


def test_a_slow_network_drops_at_every_threshold_what_the_law_of_delays_says() -> None:
    """Exponential delays of mean 1: a share exp(-Gamma) comes later than Gamma."""
    options = DracoOptions("update", max_delay=0.7, unify=False)
    world = world_of(parse_topology("complete", N), options, 0.01, latency=parse_distribution("exp:1"), timeout=1e6)
    world.run(300.0)
    late = sum(peer.guard.refused["too old"] for peer in world.peers)  # type: ignore[attr-defined]
    assert late / world.counts["delivered"] == pytest.approx(np.exp(-0.7), rel=0.02)
    assert sum(peer.guard.refused["replayed"] for peer in world.peers) == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("exchange", ["update", "model"])
def test_a_warning_names_the_bias_and_push_sum(exchange: Any) -> None:
    biased = receiver_weights(random_digraph(4))
    text = draco_warning(biased, DracoOptions(exchange)) or ""
    assert "push-sum" in text
    assert draco_warning(receiver_weights(parse_topology("ring", N)), DracoOptions(exchange)) is None
    assert draco_warning(biased, DracoOptions("push-sum", unify=False)) is None


def test_push_sum_survives_drops_and_delays() -> None:
    conditions = {
        "latency": parse_distribution("exp:0.3"),
        "drop": 0.2,
        "timeout": 1.0,
        "compute": Distribution(offset=1e9),
    }
    graph = random_digraph(4)
    options = DracoOptions("push-sum", unify=False)
    world = Simulator(
        N,
        lambda i, life, joining: Draco(i, (np.array([float(i)]),), {}, graph.neighbours(i), N, options),
        lambda i, arrays, k: arrays,
        Conditions(**conditions),  # type: ignore[arg-type]
    )
    world.run(400.0)
    np.testing.assert_allclose(models(world), 4.5, atol=1e-3)


def test_options_out_of_range() -> None:
    for wrong in (
        {"exchange": "gossip"},
        {"period": 0.0},
        {"own": 2.0},
        {"exchange": "push-sum"},
        {"max_received": -1},
    ):
        with pytest.raises(BaechiError) as caught:
            DracoOptions(**wrong)  # type: ignore[arg-type]
        assert caught.value.code == "B845"
    with pytest.raises(BaechiError, match="hears nobody"):
        receiver_weights(topology_of([[1], [2], [1]]))
