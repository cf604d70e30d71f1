"""The gossip core against what it promises: means that stay, versions that only grow, snapshots that are refused."""

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baechi.errors import BaechiError
from baechi.replicas.gossip import Gossip, GossipOptions
from baechi.replicas.peer import Arrays, Message, Snapshot


def group(count: int, random: Random, options: GossipOptions = GossipOptions(), size: int = 3) -> list[Gossip]:  # noqa: B008
    def others(i: int) -> Sequence[int]:
        return [j for j in range(count) if j != i]

    return [
        Gossip(
            i,
            (np.array([random.uniform(-9, 9) for _ in range(size)]), np.array([[random.uniform(-9, 9)]])),
            options,
            choose=lambda r, now, i=i: r.choice(others(i)),
        )
        for i in range(count)
    ]


def mean(peers: Sequence[Gossip]) -> Arrays:
    return tuple(np.mean([p.arrays[k] for p in peers], axis=0) for k in range(2))


def exchange(peers: Sequence[Gossip], sender: int, now: float, random: Random, *, lose: str = "") -> None:
    """One turn of a peer; the request or the answer may be lost."""
    for to, message in peers[sender].tick(now, random):
        if lose == "request":
            peers[sender].lost(to, now)
            return
        answer = peers[to].receive(message, now)
        if answer is None:
            peers[sender].delivered(to, now)
        else:
            peers[sender].receive(answer, now)


def apart(peers: Sequence[Gossip]) -> float:
    middle = mean(peers)
    return max(float(np.abs(a - m).max()) for p in peers for a, m in zip(p.arrays, middle, strict=True))


@given(st.integers(2, 6), st.integers(0, 2**32))
def test_symmetric_mixing_keeps_the_mean_and_finds_it(count: int, seed: int) -> None:
    random = Random(seed)
    peers = group(count, random)
    start, far = mean(peers), apart(peers)
    for k in range(40 * count):
        exchange(peers, random.randrange(count), k, random)
    assert all(np.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(mean(peers), start, strict=True))
    assert apart(peers) <= 0.05 * far


@given(st.integers(2, 6), st.integers(0, 2**32))
def test_push_sum_keeps_the_weighted_mean_when_requests_are_lost(count: int, seed: int) -> None:
    random = Random(seed)
    peers = group(count, random, GossipOptions("push-sum"))
    start = mean(peers)
    for k in range(60 * count):
        exchange(peers, random.randrange(count), 100.0 * k, random, lose=random.choice(("", "", "request")))
    assert apart(peers) < 0.5
    for p in peers:
        p.learned(tuple(a + 1 for a in p.arrays), p.arrays, 1e6)
    for k in range(60 * count):
        exchange(peers, random.randrange(count), 1e7 + k, random)
    assert all(np.allclose(a, b + 1, rtol=0, atol=0.05) for a, b in zip(peers[0].arrays, start, strict=True))


def test_pulled_means_wander_and_stay_unbiased() -> None:
    """Section 1.1 of the notes: ten peers with the values 0 to 9 end at 4.5 on average, with a spread of 0.88."""
    ends = []
    for seed in range(200):
        random = Random(seed)
        peers = [
            Gossip(
                i,
                (np.array([float(i)]),),
                GossipOptions("pull"),
                choose=lambda r, now, i=i: r.choice([j for j in range(10) if j != i]),
            )
            for i in range(10)
        ]
        for k in range(200):
            exchange(peers, random.randrange(10), k, random)
        ends.append(float(peers[0].arrays[0][0]))
    assert np.mean(ends) == pytest.approx(4.5, abs=0.15)
    assert np.std(ends) == pytest.approx(0.88, abs=0.12)


@given(st.integers(2, 5), st.integers(0, 2**32))
def test_versions_are_what_a_model_reflects(count: int, seed: int) -> None:
    """Each peer adds to its own coordinate at each update; with sums instead of means a model is what it reflects."""
    random = Random(seed)
    peers = group(count, random)
    for k in range(60):
        i = random.randrange(count)
        before = [dict(p.reflects) for p in peers]
        if random.random() < 0.4:
            own = peers[i].arrays
            peers[i].learned(tuple(a + 1 for a in own), own, k)
            assert peers[i].reflects[i] == before[i].get(i, 0) + 1
        else:
            exchange(peers, i, k, random)
        for p, was in zip(peers, before, strict=True):
            assert all(p.reflects[j] >= version for j, version in was.items())
            assert all(p.reflects.get(j, 0) <= peers[j].version for j in range(count))


def test_a_peer_alone_trains_exactly_as_without() -> None:
    peer = Gossip(0, (np.array([0.1], np.float32),), choose=lambda random, now: None)
    arrays = peer.arrays
    for _ in range(10):
        since, arrays = arrays, (arrays[0] * np.float32(1.1),)
        peer.learned(arrays, since, 0.0)
        assert peer.tick(0.0, Random(0)) == ()
    assert peer.arrays is arrays


def test_local_steps_made_during_an_exchange_stay() -> None:
    left, right = group(2, Random(0))
    start = mean((left, right))
    [(_, message)] = left.tick(0.0, Random(0))
    answer = right.receive(message, 0.1)
    left.learned(tuple(a + 1 for a in left.arrays), left.arrays, 0.2)
    assert answer is not None
    left.receive(answer, 0.3)
    assert all(np.allclose(a, b + 0.5) for a, b in zip(mean((left, right)), start, strict=True))


def crafted(serial: int, arrays: Arrays, *, incarnation: int = 0, reflects: int = 0, weight: float = 1.0) -> Message:
    return Message("push", 1, Snapshot(1, incarnation, 1, serial, arrays, {0: reflects, 1: 1}, weight))


def test_what_no_sound_peer_sends_is_refused_and_counted() -> None:
    good = (np.ones(3, np.float32), np.ones((2, 2), np.float32))
    peer = Gossip(0, good, GossipOptions(max_staleness=5, max_distance=3.0), choose=lambda random, now: 1)
    now = 0.0
    peer.receive(crafted(1, tuple(2 * a for a in good)), now)
    model = peer.arrays
    assert np.allclose(model[0], 1.5)
    bad: list[tuple[str, Message]] = [
        ("replayed", crafted(1, good)),
        ("shape", crafted(2, good[:1])),
        ("shape", crafted(3, (np.ones(4, np.float32), good[1]))),
        ("shape", crafted(4, (good[0].astype(np.float64), good[1]))),
        ("shape", crafted(5, ([1.0, 1.0, 1.0], good[1]))),  # type: ignore[arg-type]
        ("not finite", crafted(6, (np.array([1, np.nan, 1], np.float32), good[1]))),
        ("not finite", crafted(7, (np.array([1, np.inf, 1], np.float32), good[1]))),
        ("not finite", crafted(8, good, weight=float("nan"))),
        ("too far", crafted(9, tuple(50 * a for a in good))),
    ]
    for why, message in bad:
        before = peer.guard.refused[why]
        peer.receive(message, now)
        assert peer.guard.refused[why] == before + 1
        assert peer.arrays is model
    for k in range(8):
        own = peer.arrays
        peer.learned(own, own, now)
        assert peer.version == k + 1
    model = peer.arrays
    peer.receive(crafted(10, good, reflects=2), now)
    assert peer.guard.refused["stale"] == 1
    assert peer.guard.by_peer[1]["stale"] == 1
    assert peer.arrays is model
    peer.receive(crafted(11, good, reflects=3), now)
    assert peer.arrays is not model


def test_messages_that_overtake_each_other_are_sound_and_an_earlier_life_is_not() -> None:
    good = (np.ones(2),)
    peer = Gossip(0, good, choose=lambda random, now: 1)
    for serial in (3, 1, 2, 70, 69):
        peer.receive(crafted(serial, good), 0.0)
    assert not peer.guard.refused
    for serial in (3, 70, 1):
        peer.receive(crafted(serial, good), 0.0)
    assert peer.guard.refused["replayed"] == 3
    peer.receive(crafted(1, good, incarnation=1), 0.0)
    assert peer.guard.refused["replayed"] == 3
    peer.receive(crafted(99, good, incarnation=0), 0.0)
    assert peer.guard.refused["replayed"] == 4


def test_a_swap_with_a_lagging_peer_teaches_it() -> None:
    """Its own model is refused, yet it is given ours: so it catches up."""
    good = (np.ones(2),)
    peer = Gossip(0, good, GossipOptions(max_staleness=0), choose=lambda random, now: 1)
    peer.learned((np.full(2, 5.0),), good, 0.0)
    message = crafted(1, (np.zeros(2),))
    answer = peer.receive(Message("swap", 1, message.snapshot), 0.0)
    assert answer is not None
    assert answer.snapshot is not None
    assert answer.snapshot.arrays[0].tolist() == [5.0, 5.0]
    assert peer.arrays[0].tolist() == [5.0, 5.0]


def test_a_joiner_takes_over_a_model_and_the_count_of_its_own_updates() -> None:
    donor, other = group(2, Random(0))
    donor.reflects[1] = 7
    joiner = Gossip(1, other.arrays, choose=lambda random, now: 0, incarnation=1, joining=True)
    [(to, message)] = joiner.tick(0.0, Random(0))
    assert (to, message.kind) == (0, "ask")
    assert joiner.receive(Message("ask", 0), 0.0) is None, "it has no model of worth yet"
    answer = donor.receive(message, 0.0)
    assert answer is not None
    joiner.receive(answer, 0.0)
    assert joiner.arrays is donor.arrays
    assert (joiner.joining, joiner.version) == (False, 7)


def test_a_peer_that_does_not_answer_is_left_alone_for_longer_each_time() -> None:
    peer = Gossip(0, (np.ones(1),), choose=lambda random, now: 1)
    now, waits = 0.0, []
    for _ in range(5):
        [(to, _)] = peer.tick(now, Random(0))
        peer.lost(to, now)
        assert 1 in peer.ignored(now)
        assert peer.tick(now, Random(0)) == ()
        wait = next(t / 10 for t in range(1, 1000) if not peer.ignored(now + t / 10))
        waits.append(wait)
        now += wait
    assert waits == sorted(waits)
    assert waits[-1] > 4 * waits[0]
    peer.receive(crafted(1, (np.ones(1),)), now)
    assert not peer.ignored(now)


def test_options_that_are_not_of_the_paper_are_off_and_do_what_they_say() -> None:
    plain = GossipOptions()
    assert (plain.adaptive, plain.momentum, plain.delay, plain.rule) == (0.0, 0.0, 0.0, None)
    one = (np.array([1.0]),)
    late = Gossip(0, (np.array([0.0]),), GossipOptions(delay=5.0), choose=lambda random, now: 1)
    late.receive(crafted(1, one), 1.0)
    late.settle(5.9)
    assert late.arrays[0][0] == 0.0
    late.settle(6.0)
    assert late.arrays[0][0] == 0.5
    heavy = Gossip(0, (np.array([0.0]),), GossipOptions(momentum=0.5), choose=lambda random, now: 1)
    heavy.receive(crafted(1, one), 0.0)
    heavy.receive(crafted(2, one), 0.0)
    assert heavy.arrays[0][0] == 0.5 + (0.5 * 0.5 + 0.25)
    careful = Gossip(0, (np.array([0.0]),), GossipOptions(adaptive=2.0), choose=lambda random, now: 1)
    for serial, value in enumerate((1.0, 3.0), 1):
        careful.receive(crafted(serial, (np.array([value]),)), 0.0)
    variance = np.var([0.5, 1.25], ddof=1)
    assert careful.scale == pytest.approx(1 / (1 + 2 * variance))
    own = careful.arrays
    careful.learned((own[0] + 1.0,), own, 0.0)
    assert careful.arrays[0][0] == pytest.approx(own[0][0] + careful.scale)


def test_a_robust_rule_outvotes_a_hostile_peer() -> None:
    options = GossipOptions(rule="median", weight=1.0)
    peer = Gossip(0, (np.array([1.0, 1.0]),), options, choose=lambda random, now: 1)
    for sender, value in ((1, 1.1), (2, 0.9), (3, 1e6), (4, 1.05)):
        snapshot = Snapshot(sender, 0, 1, 1, (np.full(2, value),), {sender: 1})
        peer.receive(Message("give", sender, snapshot), 0.0)
    assert np.all(np.abs(peer.arrays[0] - 1) < 0.2)


@pytest.mark.parametrize(
    "options",
    [
        {"mixing": "shout"},
        {"weight": 1.5},
        {"weight": float("nan")},
        {"momentum": 1.0},
        {"delay": -1.0},
        {"mixing": "push-sum", "rule": "median"},
    ],
)
def test_options_that_make_no_sense_are_one_error(options: dict[str, object]) -> None:
    with pytest.raises(BaechiError) as caught:
        GossipOptions(**options)  # type: ignore[arg-type]
    assert caught.value.code == "B801"
    assert caught.value.help
