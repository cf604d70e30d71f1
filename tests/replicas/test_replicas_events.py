"""The event simulator against the compiled one, against arithmetic, and against itself after a stop."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from baechi.errors import BaechiError
from baechi.replicas.age_model import AgeModel
from baechi.replicas.ages import replay_ages
from baechi.replicas.clocks import Distribution, parse_distribution
from baechi.replicas.conditions import Conditions, parse_change, parse_partition
from baechi.replicas.events import Simulator
from baechi.replicas.gossip import Gossip, GossipOptions
from baechi.replicas.peer import Arrays, Envelope, Message, Snapshot
from baechi.replicas.state import read_state, write_state
from baechi.replicas.topology import Chooser, parse_topology, topology_of

NEVER = Distribution(offset=1e9)


def still(peer: int, arrays: Arrays, k: int) -> Arrays:
    """An update that changes nothing."""
    return arrays


def pull_to(targets: Sequence[float], eta: float = 0.05) -> Any:
    """Gradient steps on (x - target)^2 / 2, one target for each peer."""
    return lambda i, arrays, k: tuple(a + eta * (targets[i] - a) for a in arrays)


def gossips(n: int, mixing: Any, start: Any = None, topology: str = "complete", **options: Any) -> Any:
    graph = parse_topology(topology, n)
    values = np.arange(n, dtype=float) if start is None else start
    settings = GossipOptions(mixing=mixing, **options)

    def make(i: int, life: int, joining: bool) -> Gossip:
        model = (np.array([values[i]]),)
        return Gossip(i, model, settings, choose=Chooser(graph, i), incarnation=life, joining=joining)

    return make


def models(world: Simulator) -> np.ndarray:
    return np.array([peer.arrays[0][0] for peer in world.peers])


@pytest.mark.parametrize("mixing", ["pull", "symmetric", "push-sum"])
@pytest.mark.parametrize("topology", ["complete", "ring", "one-peer-exponential"])
def test_the_same_log_gives_the_same_version_vectors_and_models(mixing: str, topology: str) -> None:
    n = 9
    world = Simulator(n, gossips(n, mixing, topology=topology), still, seed=3, logs=True)
    world.run(30.0)
    log = world.log or []
    kinds = np.array([event.other >= 0 for event in log], np.int64)
    first, second = np.array([event.peer for event in log]), np.array([event.other for event in log])
    start = np.arange(n, dtype=float)[:, None]
    ages = replay_ages(AgeModel(parse_topology(topology, n), mixing=mixing), kinds, first, second, start)
    peers = [[peer.reflects.get(i, 0) for i in range(n)] for peer in world.peers]  # type: ignore[attr-defined]
    assert kinds.sum() > 200
    assert len(kinds) - kinds.sum() == sum(world.steps) > 200
    np.testing.assert_array_equal(ages.versions, peers)
    np.testing.assert_allclose(ages.values[:, 0], models(world), rtol=1e-12)


def test_pull_wanders_and_the_other_two_find_the_mean() -> None:
    """Source: exact moments of n = 10 values 0..9 (E = 4.5, standard deviation .88 of the limit)."""
    conditions = Conditions(compute=NEVER)
    limits = {}
    for mixing in ("pull", "symmetric", "push-sum"):
        limits[mixing] = []
        for seed in range(120 if mixing == "pull" else 5):
            world = Simulator(10, gossips(10, mixing), still, conditions, seed=seed)
            world.run(14.0 if mixing == "pull" else 80.0)
            limits[mixing].append(models(world).mean() if mixing == "pull" else models(world))
    assert np.mean(limits["pull"]) == pytest.approx(4.5, abs=0.3)
    assert np.std(limits["pull"]) == pytest.approx(0.88, rel=0.2)
    assert np.allclose(limits["symmetric"], 4.5, atol=1e-4)
    assert np.allclose(limits["push-sum"], 4.5, atol=1e-4)


@pytest.mark.parametrize("drop", [0.0, 0.3])
def test_push_sum_loses_nothing_whatever_is_lost_on_the_way(drop: float) -> None:
    conditions = Conditions(compute=NEVER, latency=parse_distribution("0.01+exp:0.2"), drop=drop, timeout=1.0)
    world = Simulator(8, gossips(8, "push-sum"), still, conditions, seed=1)
    world.run(200.0)
    assert (world.counts["dropped"] > 50) == (drop > 0)
    assert np.allclose(models(world), 3.5, atol=0.02)


def test_push_sum_counts_all_peers_alike_in_a_graph_where_some_are_heard_more() -> None:
    """The optimum of the mean is 4.5; peers 0 and 9 have 5 and 1 in-links of 30."""
    graph = topology_of([[1], [0, 2], [0, 3], [0, 4], [0, 5], [0, 6], [7], [8], [9], [0]])

    def make(i: int, life: int, joining: bool) -> Gossip:
        return Gossip(i, (np.array([4.0]),), GossipOptions(mixing="push-sum"), choose=Chooser(graph, i))

    conditions = Conditions(Distribution(offset=1.0), parse_distribution("exp:0.1"))
    world = Simulator(10, make, pull_to(range(10), 0.01), conditions)
    world.run(300.0)
    means = []
    for until in range(301, 601):
        world.run(float(until))
        means.append(models(world).mean())
    assert np.mean(means) == pytest.approx(4.5, abs=0.15)


def everything(n: int) -> Conditions:
    return Conditions(
        compute=parse_distribution("0.2+exp:0.5"),
        mixing=parse_distribution("exp:0.5"),
        burst=2.0,
        latency=parse_distribution("lognormal:0.05:0.8"),
        bandwidth=parse_distribution("hist:1000=1,5000=2"),
        drop=0.1,
        timeout=0.5,
        slow={0: 4.0},
        partitions=(parse_partition("5-9:0,1|2,3"),),
        churn=tuple(map(parse_change, ("crash:2@4", "restart:2@7", "leave:1@12", "join:5@6"))),
    )


@pytest.mark.parametrize("mixing", ["pull", "symmetric", "push-sum"])
def test_a_run_that_was_stopped_and_resumed_gives_the_same_numbers_to_the_bit(mixing: str, tmp_path: Path) -> None:
    make, step = gossips(6, mixing), pull_to(range(6))
    whole = Simulator(6, make, step, everything(6), seed=5, logs=True)
    whole.run(20.0)
    parts = Simulator(6, make, step, everything(6), seed=5, logs=True)
    for until in (3.3, 6.5, 8.1, 14.0):
        parts.run(until)
        parts.save(tmp_path / "state")
        parts = Simulator.resume(tmp_path / "state", make, step)
    parts.run(20.0)
    assert models(parts).tobytes() == models(whole).tobytes()
    assert (parts.log, parts.counts, parts.steps, parts.lives) == (whole.log, whole.counts, whole.steps, whole.lives)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    other = Simulator(6, make, step, everything(6), seed=6)
    other.run(20.0)
    assert models(other).tobytes() != models(whole).tobytes()


def test_a_straggler_is_as_much_slower_as_told_and_costs_the_others_nothing() -> None:
    conditions = Conditions(compute=Distribution(offset=1.0), slow={2: 4.0}, latency=Distribution(offset=0.1))
    world = Simulator(4, gossips(4, "symmetric"), still, conditions)
    world.run(40.05)
    assert world.steps == [40, 40, 10, 40]


def test_churn_restarts_with_the_next_incarnation_and_joins_with_the_others_model() -> None:
    churn = tuple(map(parse_change, ("crash:0@10", "restart:0@20", "join:3@15", "leave:1@25")))
    world = Simulator(4, gossips(4, "symmetric", [5.0, 5.0, 5.0, -100.0]), still, Conditions(churn=churn), seed=2)
    world.run(12.0)
    assert world.up == [False, True, True, False]
    frozen = world.steps[0]
    world.run(19.9)
    assert world.steps[0] == frozen
    assert models(world)[3] == pytest.approx(5.0)  # not -100: it took a model before it gave one
    world.run(60.0)
    assert world.lives == [1, 0, 0, 0]
    assert world.up == [True, False, True, True]
    assert world.steps[0] > frozen + 20
    assert world.counts["down"] > 0
    assert np.allclose(models(world), 5.0)


def test_a_peer_that_comes_twice_has_one_clock_of_each_kind() -> None:
    churn = tuple(
        map(parse_change, ("join:1@1", "crash:1@3", "join:1@5", "crash:1@10", "restart:1@11", "restart:1@12"))
    )
    conditions = Conditions(compute=Distribution(offset=1.0), churn=churn)
    world = Simulator(2, gossips(2, "pull", [1.0, 1.0]), still, conditions, logs=True, seed=4)
    world.run(60.0)
    assert world.lives == [0, 2]
    ends = [event.at for event in world.log or [] if event == (event.at, 1, -1)]
    assert min(np.diff(ends)) >= 1 - 1e-9


def test_a_partition_keeps_groups_apart_until_it_heals() -> None:
    conditions = Conditions(compute=NEVER, timeout=0.2, partitions=(parse_partition("0-100:0,1|2,3"),))
    world = Simulator(4, gossips(4, "symmetric"), still, conditions)
    world.run(99.0)
    assert np.allclose(models(world), [0.5, 0.5, 2.5, 2.5])
    assert world.counts["partitioned"] > 0
    world.run(200.0)
    assert np.allclose(models(world), 1.5, atol=1e-3)


def test_a_token_bucket_bounds_every_interval() -> None:
    conditions = Conditions(compute=NEVER, mixing=parse_distribution("exp:0.5"), burst=3.0)
    world = Simulator(2, gossips(2, "pull"), still, conditions, logs=True)
    world.run(500.0)
    for i in range(2):
        times = np.array([e.at for e in world.log or [] if e.peer == i])
        for seconds in (0.1, 1.0, 10.0):
            most = max(np.searchsorted(times, t + seconds) - k for k, t in enumerate(times))
            assert most <= 3 + 2.0 * seconds + 1e-9
        assert len(times) > 700


class Recorder:
    """A peer that asks peer 1 at each tick and writes down what becomes of it."""

    def __init__(self, peer: int) -> None:
        self.peer, self.arrays = peer, (np.zeros(100),)
        self.heard: list[tuple[str, float]] = []

    def learned(self, arrays: Arrays, since: Arrays, now: float) -> Sequence[Envelope]:
        return ()

    def tick(self, now: float, random: Random) -> Sequence[Envelope]:
        return (Envelope(1, Message("ask", self.peer)),) if self.peer == 0 else ()

    def receive(self, message: Message, now: float) -> Message | None:
        self.heard.append((message.kind, now))
        if message.kind == "ask":
            return Message("give", self.peer, Snapshot(self.peer, 0, 0, 0, self.arrays, {}))
        return None

    def delivered(self, to: int, now: float) -> None:
        self.heard.append(("delivered", now))

    def lost(self, to: int, now: float) -> None:
        self.heard.append(("lost", now))


def test_latency_and_bandwidth_add_up_and_late_answers_are_lost_at_the_deadline() -> None:
    conditions = Conditions(
        compute=NEVER,
        mixing=Distribution(offset=10.0),
        latency=Distribution(offset=0.5),
        bandwidth=Distribution(offset=864.0),
        timeout=3.0,
    )
    world = Simulator(2, lambda i, life, joining: Recorder(i), still, conditions)
    world.run(19.0)
    asked = 10 + 0.5 + 64 / 864
    assert world.peers[1].heard == [("ask", pytest.approx(asked))]  # type: ignore[attr-defined]
    assert world.peers[0].heard == [("give", pytest.approx(asked + 0.5 + 1.0))]  # type: ignore[attr-defined]
    slow = Simulator(
        2,
        lambda i, life, joining: Recorder(i),
        still,
        Conditions(NEVER, Distribution(offset=10.0), timeout=2.0, latency=Distribution(offset=1.5)),
    )
    slow.run(19.0)
    assert slow.peers[0].heard == [("lost", 12.0)]  # type: ignore[attr-defined]
    assert slow.counts["late"] == 1


def test_a_state_names_nothing_but_what_a_simulation_is_made_of(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (eval, ("1",))

    write_state(tmp_path / "evil", {"evil": Evil()})
    with pytest.raises(BaechiError, match=r"builtins\.eval"):
        read_state(tmp_path / "evil")
    with pytest.raises(BaechiError, match="cannot read"):
        read_state(tmp_path / "none")
    (tmp_path / "plain").write_bytes(pickle.dumps({}))
    with pytest.raises(BaechiError, match="damaged"):
        read_state(tmp_path / "plain")


@pytest.mark.parametrize("text", ["crash:1", "explode:1@2", "crash:x@1", "crash:1@."])
def test_a_change_that_is_none(text: str) -> None:
    with pytest.raises(BaechiError) as caught:
        parse_change(text)
    assert caught.value.code == "B843"


def test_conditions_out_of_range() -> None:
    for wrong in ({"drop": 1.0}, {"timeout": 0.0}, {"compute": Distribution()}, {"slow": {0: 0.0}}):
        with pytest.raises(BaechiError):
            Conditions(**wrong)  # type: ignore[arg-type]
    with pytest.raises(BaechiError, match="peer 7"):
        Simulator(2, gossips(2, "pull"), still, Conditions(churn=(parse_change("crash:7@1"),)))
