"""Hubs that reach each other by plain calls: what workers are given, and when."""

import threading
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baechi.errors import BaechiError
from baechi.replicas.cluster.history import version_ages
from baechi.replicas.cluster.hub import Hub, HubOptions, Lost
from baechi.replicas.gossip import GossipOptions
from baechi.replicas.peer import Arrays, Message, Snapshot


def nobody(to: int, message: Message, patience: float) -> Message | None:
    raise Lost


def push(hub: Hub, serial: int, values: list[float], sender: int = 1) -> None:
    """Another replica's model comes."""
    arrays = tuple(np.array([v]) for v in values)
    hub.receive(Message("push", sender, Snapshot(sender, 0, serial, serial, arrays, {sender: serial})))


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_all_workers_of_a_replica_get_the_same_version_at_the_same_step(seed: int) -> None:
    """Whatever the order in which they come: their shares are always those of one whole model, and the hub's."""
    random = Random(seed)
    shares = random.randint(1, 3)
    hub = Hub(0, HubOptions(2, shares), nobody)
    threads = [threading.Thread(target=hub.enter, args=(r, (np.array([0.0]),))) for r in range(shares)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    at = [0] * shares
    params = [0.0] * shares
    history: dict[int, dict[int, float]] = {}
    serial = 0
    for _ in range(60):
        if random.random() < 0.3:
            serial += 1
            push(hub, serial, [random.uniform(-1, 1)] * shares)
            continue
        rank = random.choice([r for r in range(shares) if at[r] <= min(at)])
        at[rank] += 1
        params[rank] += 1.0  # all learn the same, so that their shares stay equal when versions are
        taught = hub.boundary(rank, at[rank], (np.array([params[rank]]),), None)
        if taught is not None:
            params[rank] = float(taught[0][0])
        history.setdefault(at[rank], {})[rank] = params[rank]
    for values in history.values():
        assert np.ptp(list(values.values())) < 1e-12
    model = hub.model()
    assert model is not None
    assert np.ptp([float(a[0]) for a in model]) < 1e-12


def test_what_is_mixed_in_between_two_steps_comes_at_the_next() -> None:
    hub = Hub(0, HubOptions(2), nobody)
    assert hub.enter(0, (np.array([0.0]),)) is None
    first = (np.array([1.0]),)
    assert hub.boundary(0, 1, first, 0.5) is None, "nothing came: the worker keeps what it has"
    push(hub, 1, [3.0])
    taught = hub.boundary(0, 2, (np.array([2.0]),), 0.4)
    assert taught is not None
    assert taught[0][0] == 3.0, "half the way from 1 to 3, and one step"
    assert hub.boundary(0, 3, (np.array([4.0]),), 0.3) is None
    status = hub.status()
    assert (status["steps"], status["version"], status["mixed"]) == (3, 3, 1)
    assert status["losses"] == [(1, 0.5), (2, 0.4), (3, 0.3)]


def test_hubs_that_swap_keep_the_sum_of_what_all_learned() -> None:
    hubs: list[Hub] = []

    def call(to: int, message: Message, patience: float) -> Message | None:
        return hubs[to].receive(message)

    hubs += [Hub(i, HubOptions(3, capacity=400.0, seed=i), call) for i in range(3)]
    starts: list[Arrays] = [(np.array([float(i)]),) for i in range(3)]
    for hub, start in zip(hubs, starts, strict=True):
        hub.enter(0, start)
        hub.start()

    def work(hub: Hub, value: Arrays) -> None:
        for step in range(1, 201):
            value = (value[0] + 1.0,)
            value = hub.boundary(0, step, value, None) or value
            threading.Event().wait(0.001)

    threads = [threading.Thread(target=work, args=each) for each in zip(hubs, starts, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for hub in hubs:
        hub.stop()
    for thread in threading.enumerate():
        if thread.name.startswith("mix-"):
            thread.join(10)  # an exchange that is under way moves one side before the other
    models: list[Arrays] = [m for hub in hubs if (m := hub.model()) is not None]
    assert sum(float(m[0][0]) for m in models) == pytest.approx(0 + 1 + 2 + 3 * 200, abs=1e-6)
    assert all(hub.status()["mixed"] > 10 for hub in hubs)
    assert all(0 <= age < 200 for age in version_ages({i: h.status() for i, h in enumerate(hubs)}).values())


def test_a_joiner_waits_for_a_model_and_begins_with_it() -> None:
    donor = Hub(0, HubOptions(1), nobody)
    donor.enter(0, (np.array([7.0]),))
    joiner = Hub(1, HubOptions(1), lambda to, message, patience: donor.receive(message), incarnation=1, joining=True)
    joiner.meet((0, 1))
    joiner.start()
    taught = joiner.enter(0, (np.array([0.0]),))
    joiner.stop()
    assert taught is not None
    assert taught[0][0] == 7.0
    assert joiner.boundary(0, 1, (np.array([8.0]),), None) is None
    model = joiner.model()
    assert model is not None
    assert model[0][0] == 8.0


def test_a_joiner_without_donors_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baechi.replicas.cluster.hub._JOIN_PATIENCE_SECONDS", 0.3)
    hub = Hub(1, HubOptions(2), nobody, joining=True)
    hub.start()
    with pytest.raises(BaechiError, match="found nobody") as caught:
        hub.enter(0, (np.array([0.0]),))
    hub.stop()
    assert caught.value.code == "B803"


def test_a_delayed_mix_reaches_the_worker_too() -> None:
    hub = Hub(0, HubOptions(2, gossip=GossipOptions(delay=0.05)), nobody)
    hub.enter(0, (np.array([0.0]),))
    push(hub, 1, [2.0])
    assert hub.boundary(0, 1, (np.array([0.0]),), None) is None
    threading.Event().wait(0.06)
    taught = hub.boundary(0, 2, (np.array([0.0]),), None)
    assert taught is not None
    assert taught[0][0] == 1.0


def test_a_step_before_join_is_an_error() -> None:
    with pytest.raises(BaechiError, match="no model yet"):
        Hub(0, HubOptions(2), nobody).boundary(0, 1, (np.array([0.0]),), None)
