"""Distributions against their moments, token buckets against every interval, topologies against graph theory."""

import math
from random import Random

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baechi.errors import BaechiError
from baechi.replicas.clocks import TokenBucket, parse_distribution
from baechi.replicas.topology import (
    Chooser,
    Topology,
    mixing_matrix,
    mixing_warning,
    parse_topology,
    perron_weights,
    topology_of,
)

TEXTS = {
    "0.5": (0.5, 0.0),
    "exp:2.0": (2.0, 4.0),
    "0.5+exp:1.0": (1.5, 1.0),
    "erlang:4:1.0": (1.0, 0.25),
    "lognormal:1.5:0.5": (1.5, 2.25 * math.expm1(0.25)),
    "hist:0.1=3,0.5=1": (0.2, 0.03),
    "3*0.5+exp:1.0": (4.5, 9.0),
}


@pytest.mark.parametrize("text", TEXTS)
def test_samples_have_the_moments_of_the_law(text: str) -> None:
    found = parse_distribution(text)
    mean, variance = TEXTS[text]
    assert (found.mean, found.variance) == (pytest.approx(mean), pytest.approx(variance))
    assert parse_distribution(str(found)) == found
    many = found.samples(np.random.default_rng(0), 100_000)
    one = [found.sample(rng) for rng in [np.random.default_rng(1)] for _ in range(2000)]
    assert many.mean() == pytest.approx(mean, rel=0.02)
    assert many.var() == pytest.approx(variance, rel=0.05, abs=1e-12)
    assert np.mean(one) == pytest.approx(mean, rel=0.1)
    assert many.min() >= 0


@pytest.mark.parametrize(
    "text",
    ["", "exp", "exp:", "exp:-1", "exp:nan", "exp:inf", "-1", "foo:1:2", "hist:1=0", "erlang:0:1", "1+2", "*exp:1"],
)
def test_text_that_is_no_distribution(text: str) -> None:
    with pytest.raises(BaechiError) as caught:
        parse_distribution(text)
    assert caught.value.code == "B840"


@given(st.lists(st.floats(0, 3, allow_nan=False), min_size=1, max_size=60), st.floats(0.2, 5), st.integers(1, 4))
def test_a_bucket_gives_at_most_its_depth_and_what_ran_in(pauses: list[float], rate: float, depth: int) -> None:
    bucket, now, taken = TokenBucket(rate, depth), 0.0, []
    for pause in pauses:
        now += pause
        if bucket.take(now):
            taken.append(now)
        else:
            assert bucket.ready(now) > now
    for i, start in enumerate(taken):
        for j, end in enumerate(taken[i:]):
            assert j + 1 <= depth + rate * (end - start) + 1e-6


def test_a_token_is_there_when_the_bucket_says_so() -> None:
    bucket, now = TokenBucket(3.0, 2.0), 0.0
    for _ in range(100):
        now = bucket.ready(now)
        assert bucket.take(now)
    assert now == pytest.approx(98 / 3)
    for rate, depth in ((0.0, 1.0), (1.0, 0.5)):
        with pytest.raises(BaechiError):
            TokenBucket(rate, depth)


def graph_of(topology: Topology) -> nx.DiGraph:
    return nx.DiGraph([(i, j) for i in range(topology.peers) for j in topology.neighbours(i)])


@pytest.mark.parametrize(
    ("name", "n", "degree"),
    [
        ("complete", 7, 6),
        ("ring", 9, 2),
        ("ring", 2, 1),
        ("torus", 20, 4),
        ("torus", 6, 3),
        ("torus", 4, 2),
        ("exponential", 16, 4),
        ("random-regular:3", 10, 3),
        ("random-regular:4", 200, 4),
        ("random-regular:7", 8, 7),
        ("random-regular:5", 8, 5),
    ],
)
def test_a_topology_is_regular_connected_and_doubly_stochastic(name: str, n: int, degree: int) -> None:
    topology = parse_topology(name, n, seed=1)
    graph = graph_of(topology)
    assert set(dict(graph.out_degree).values()) == set(dict(graph.in_degree).values()) == {degree}
    assert nx.is_strongly_connected(graph)
    assert not list(nx.selfloop_edges(graph))
    assert (nx.to_undirected(graph).number_of_edges() * 2 == graph.number_of_edges()) == (name != "exponential")
    assert mixing_warning(mixing_matrix(topology)) is None


def test_a_torus_is_a_torus() -> None:
    assert nx.is_isomorphic(
        graph_of(parse_topology("torus", 20)).to_undirected(), nx.grid_2d_graph(4, 5, periodic=True)
    )


@pytest.mark.parametrize("name", ["complete", "ring", "torus", "random-regular:3"])
def test_neighbours_are_picked_uniformly(name: str) -> None:
    topology, random = parse_topology(name, 12), Random(0)
    near = topology.neighbours(5)
    picks = [topology.pick(5, random) for _ in range(6000)]
    counts = np.array([picks.count(j) for j in near])
    assert counts.sum() == 6000
    expected = 6000 / len(near)
    assert ((counts - expected) ** 2 / expected).sum() < 3 * len(near) + 10


def test_one_peer_of_the_exponential_graph_at_a_time_averages_exactly() -> None:
    """Source: Ying et al. (2110.13363), lemma 1: log2 n rounds of it are the exact average when n is a power of 2."""
    n = 16
    topology = parse_topology("one-peer-exponential", n)
    choosers = [Chooser(topology, i) for i in range(n)]
    x = np.random.default_rng(0).normal(size=n)
    mean = x.mean()
    for _ in range(4):
        x = np.array([(x[i] + x[choosers[i](Random(0), 0.0)]) / 2 for i in range(n)])
    np.testing.assert_allclose(x, mean)


def test_a_biased_matrix_is_warned_about_with_its_weights() -> None:
    star = mixing_matrix(topology_of([[1, 2, 3], [0], [0], [0]]))
    text = mixing_warning(star) or ""
    np.testing.assert_allclose(perron_weights(star), [0.5, 1 / 6, 1 / 6, 1 / 6])
    assert "0.67 to 2.00 times" in text
    assert "push-sum" in text
    assert "sum to 0.5" in (mixing_warning(np.array([[0.5, 0.5], [0.25, 0.25]])) or "")
    with pytest.raises(BaechiError):
        mixing_warning(np.ones((2, 3)))


@pytest.mark.parametrize(
    ("name", "n"),
    [("star", 4), ("torus", 7), ("random-regular:3", 5), ("random-regular:4", 4), ("ring", 1), ("random-regular", 4)],
)
def test_what_is_no_topology(name: str, n: int) -> None:
    with pytest.raises(BaechiError) as caught:
        parse_topology(name, n)
    assert caught.value.code == "B841"


@pytest.mark.parametrize("neighbours", [[[1], []], [[0], [0]], [[1], [2]]])
def test_neighbours_that_cannot_be(neighbours: list[list[int]]) -> None:
    with pytest.raises(BaechiError):
        topology_of(neighbours)
