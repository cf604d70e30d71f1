"""Ring averages against the mean, byte counts against 2(k-1)/k, and rings whose members die."""

import itertools
from collections.abc import Mapping
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baechi.errors import BaechiError
from baechi.replicas.ravnest.rings import average, find_rings, reduce_ring

NAMES = [f"w{i}" for i in range(12)]


def models(random: np.random.Generator, cuts: list[list[int]]) -> list[list[dict[str, np.ndarray]]]:
    """By cluster and stage, the parameters of a model that each cluster cuts elsewhere."""
    shapes = {name: tuple(random.integers(1, 4, 2)) for name in NAMES}
    found = []
    for cut in cuts:
        values = {name: random.normal(size=shapes[name]) for name in NAMES}
        ends = [0, *cut, len(NAMES)]
        found.append([{n: values[n] for n in NAMES[a:b]} for a, b in itertools.pairwise(ends)])
    return found


def whole(stages: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: array for stage in stages for name, array in stage.items()}


@settings(max_examples=40)
@given(st.integers(1, 6), st.integers(0, 40), st.integers(0, 1000))
def test_all_members_get_the_mean_with_the_same_bits(members: int, length: int, seed: int) -> None:
    vectors = list(np.random.default_rng(seed).normal(size=(members, length)).astype(np.float32))
    before = [v.copy() for v in vectors]
    found = reduce_ring(vectors)
    for one, own, kept in zip(found.vectors, vectors, before, strict=True):
        assert one is not None
        assert one.tobytes() == found.vectors[0].tobytes()  # type: ignore[union-attr]
        np.testing.assert_allclose(one, np.mean(vectors, axis=0), rtol=1e-5, atol=1e-6)
        assert own.tobytes() == kept.tobytes()
    assert sum(found.sent_bytes) == 2 * (members - 1) * length * 4
    if length % members == 0:
        assert set(found.sent_bytes) == {2 * (members - 1) * length * 4 // members}


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_clusters_that_cut_a_model_differently_get_its_mean(seed: int, clusters: int) -> None:
    choose = Random(seed)
    cuts = [sorted(choose.sample(range(1, len(NAMES)), choose.randint(0, 4))) for _ in range(clusters)]
    held = models(np.random.default_rng(seed), cuts)
    found = average(held, NAMES)
    wanted = {n: np.mean([whole(stages)[n] for stages in held], axis=0) for n in NAMES}
    for stages, before in zip(found.arrays, held, strict=True):
        assert [list(s) for s in stages] == [list(s) for s in before]
        for name, array in whole(list(map(dict, stages))).items():
            np.testing.assert_allclose(array, wanted[name], rtol=1e-12)
    assert [n for ring in found.rings for n in ring.names] == NAMES
    assert len(found.rings) == len({c for cut in cuts for c in cut}) + 1
    size = sum(a.nbytes for stage in held[0] for a in stage.values())
    assert sum(sum(sent) for sent in found.sent_bytes) == 2 * (clusters - 1) * size


def test_a_slice_that_a_peer_holds_twice_is_two_rings() -> None:
    rings = find_rings([[{"a", "c"}, {"b"}], [{"a", "b", "c"}]], ["a", "b", "c"])
    assert [r.names for r in rings] == [("a",), ("b",), ("c",)]
    assert [r.stages for r in rings] == [(0, 0), (1, 0), (0, 0)]


@pytest.mark.parametrize("clock", range(8))
def test_a_ring_skips_who_dies_and_the_rest_agree(clock: int) -> None:
    vectors = list(np.random.default_rng(1).normal(size=(4, 10)))
    found = reduce_ring(vectors, {2: clock})
    done = clock > 5  # a ring of four has six rounds, and who dies after them is in the mean
    assert found.living == ((0, 1, 2, 3) if done else (0, 1, 3))
    assert found.attempts == (1 if done else 2)
    for m in found.living:
        np.testing.assert_allclose(found.vectors[m], np.mean([vectors[i] for i in found.living], axis=0))
        assert found.vectors[m].tobytes() == found.vectors[0].tobytes()  # type: ignore[union-attr]
    assert done or found.vectors[2] is None
    rounds = 6 if done else clock
    assert sum(found.sent_bytes) == 8 * 10 * rounds + (0 if done else 8 * 10 * 4)


def test_one_after_another_may_die_but_not_all() -> None:
    vectors = [np.full(6, float(i)) for i in range(3)]
    found = reduce_ring(vectors, {0: 1, 1: 2})
    assert found.living == (2,)
    assert found.vectors[2] is not None
    assert found.vectors[2].tolist() == [2.0] * 6
    with pytest.raises(BaechiError) as error:
        reduce_ring(vectors, {0: 0, 1: 0, 2: 0})
    assert error.value.code == "B857"


def test_a_dead_peer_costs_its_slice_only() -> None:
    held = models(np.random.default_rng(3), [[6], [4], [9]])
    found = average(held, NAMES, {(1, 0): 1})
    plain = {n: np.mean([whole(stages)[n] for stages in held], axis=0) for n in NAMES}
    without = {n: np.mean([whole(held[c])[n] for c in (0, 2)], axis=0) for n in NAMES}
    for name in NAMES:
        wanted = without if name in held[1][0] else plain
        np.testing.assert_allclose(whole(list(map(dict, found.arrays[0])))[name], wanted[name])
    dead: Mapping[str, np.ndarray] = found.arrays[1][0]
    assert all(dead[n].tobytes() == held[1][0][n].tobytes() for n in dead)
    assert [1 in one for one in found.skipped] == [ring.stages[1] == 0 for ring in found.rings]


def test_types_are_not_mixed() -> None:
    held = [[{"a": np.ones(2, np.float32), "b": np.full(3, value)}] for value in (1.0, 2.0)]
    found = average(held, ["a", "b"])
    assert {n: a.dtype for n, a in found.arrays[0][0].items()} == {"a": np.dtype("f4"), "b": np.dtype("f8")}
    assert [ring.names for ring in found.rings] == [("a",), ("b",)]


def test_what_is_not_one_model_is_refused() -> None:
    one, two = {"a": np.ones(2)}, {"b": np.ones(2)}
    bad = ([[one], [two]], [[one, one]], [[one], [{"a": np.ones(3)}]], [[one], [{"a": np.ones(2, np.float32)}]])
    for clusters in bad:
        with pytest.raises(BaechiError) as error:
            average(clusters, ["a"])
        assert error.value.code == "B856"
    with pytest.raises(BaechiError):
        reduce_ring([np.ones(2), np.ones(3)])
