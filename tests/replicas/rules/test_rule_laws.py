"""What holds for the rules whatever the vectors: symmetry, and bounds of the papers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from baechi.replicas import aggregate, attack
from baechi.replicas.rules import RULES
from baechi.replicas.rules.columns import in_order, nearest

ALL = tuple(rule for rule in RULES if rule != "zeno")
ROUNDS = st.tuples(st.integers(3, 12), st.integers(1, 6), st.integers(0, 2**32 - 1))


def _vectors(drawn):
    m, d, seed = drawn
    random = np.random.default_rng(seed)
    return random.standard_normal((m, d)), int(random.integers(0, (m - 1) // 2 + 1)), random


def _is_unique(rule, X, f):
    """Not with one neighbour, when two peers have the same score and the first wins; nor between two numbers."""
    if rule in ("krum", "multi-krum"):
        return len(X) - f - 2 > 1
    return rule != "geometric-median" or X.shape[1] > 1


@settings(max_examples=15)
@given(ROUNDS)
@pytest.mark.parametrize("rule", ALL)
def test_the_order_of_the_peers_does_not_matter(rule, drawn):
    X, f, random = _vectors(drawn)
    if not _is_unique(rule, X, f):
        return
    np.testing.assert_allclose(aggregate(rule, random.permutation(X), f=f), aggregate(rule, X, f=f), atol=1e-9)


@settings(max_examples=15)
@given(ROUNDS)
@pytest.mark.parametrize("rule", [rule for rule in ALL if rule != "centered-clipping"])
def test_moving_and_scaling_all_moves_and_scales_the_result(rule, drawn):
    X, f, _ = _vectors(drawn)
    if not _is_unique(rule, X, f):
        return
    moved = aggregate(rule, 3.0 * X + 2.0, f=f)
    np.testing.assert_allclose(moved, 3.0 * aggregate(rule, X, f=f) + 2.0, atol=1e-8)


@settings(max_examples=15)
@given(ROUNDS, st.integers(0, 4))
@pytest.mark.parametrize("rule", ALL)
def test_not_finite_vectors_are_as_if_never_sent(rule, drawn, count):
    X, f, random = _vectors(drawn)
    count = min(count, len(X) - 1)
    f = min(f, (len(X) - count - 1) // 2)
    if not _is_unique(rule, X, f):
        return
    spoilt = random.choice([np.nan, np.inf, -np.inf], (count, X.shape[1]))
    sent = random.permutation(np.concatenate((X, spoilt)))
    np.testing.assert_allclose(aggregate(rule, sent, f=f + count), aggregate(rule, X, f=f), atol=1e-9)


@settings(max_examples=15)
@given(ROUNDS, st.integers(0, 5))
@pytest.mark.parametrize("rule", ALL)
def test_shards_are_as_the_whole(rule, drawn, cut):
    X, f, _ = _vectors(drawn)
    shards = aggregate(rule, [X[:, :cut], X[:, cut:]], f=f)
    np.testing.assert_allclose(np.concatenate(shards), aggregate(rule, X, f=f), atol=1e-12)


@pytest.mark.parametrize("m", [1, 2, 3, 5, 8, 13, 20, 40, 130])
def test_the_network_sorts(m):
    block = torch.randn(m, 9000 // m + 8200, generator=torch.Generator().manual_seed(m))
    expected = block.sort(0).values
    assert torch.equal(torch.stack(in_order(block.clone(), range(m))), expected)
    b = (m - 1) // 3
    rows = in_order(block.clone(), {*range(b), *range(m - b, m)}, range(b, m - b))
    assert all(torch.equal(rows[i], expected[i]) for i in {*range(b), *range(m - b, m)})
    assert torch.allclose(torch.stack(rows[b : m - b]).sum(0), expected[b : m - b].sum(0), atol=1e-4)


def test_the_nearest_are_found_from_the_order():
    values, centre = torch.tensor([[0.0], [1.0], [4.0], [5.0], [9.0]]), torch.tensor([4.5])
    assert nearest(list(values), centre, 2).item() == pytest.approx((1 + 4 + 5) / 3)


@pytest.mark.parametrize("seed", range(40))
def test_geometric_median_as_a_converged_solver(seed):
    random = np.random.default_rng(seed)
    m, d = int(random.integers(3, 20)), int(random.integers(2, 8))
    X = random.standard_normal((m, d)) * 10.0 ** random.uniform(-1, 1)
    X[: m // 4] *= 100.0
    found = aggregate("geometric-median", X)

    def distance(y):
        return np.linalg.norm(X - y, axis=1).sum()

    def slope(y):
        away = y - X
        return (away / np.maximum(np.linalg.norm(away, axis=1), 1e-300)[:, None]).sum(0)

    solved = minimize(distance, np.median(X, 0), jac=slope, method="BFGS", options={"gtol": 1e-10}).x
    assert distance(found) <= distance(solved) + 1e-9 * distance(solved)
    at_a_vector = np.linalg.norm(X - found, axis=1).min() < 1e-12
    assert at_a_vector or np.linalg.norm(slope(found)) < 1e-5


def test_geometric_median_at_a_vector():
    X = np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.1], [0.0, 1.0], [0.0, -1.0]])
    np.testing.assert_array_equal(aggregate("geometric-median", X), [0.0, 0.0])
    np.testing.assert_array_equal(aggregate("geometric-median", np.ones((4, 2))), [1.0, 1.0])


@pytest.mark.parametrize(("rule", "factor", "plus"), [("trimmed-mean", 2.0, 0.0), ("phocas", 12.0, 4.0)])
def test_mean_squared_error_is_inside_the_bound_under_a_dimensional_attack(rule, factor, plus):
    m, q, d = 20, 8, 4000
    bound = plus + factor * (q + 1) * (m - q) / (m - 2 * q) ** 2
    random = np.random.default_rng(0)
    for value in (-100.0, -1.0, 0.5, 2.0):
        X = random.standard_normal((m, d))
        rows = np.argsort(random.random((m, d)), axis=0)[:q]
        np.put_along_axis(X, rows, value, axis=0)
        assert np.mean(np.square(aggregate(rule, X, b=q))) <= bound, value


def test_dimensional_attacks_break_krum_and_the_geometric_median_and_no_coordinate_rule():
    random, m, q, d = np.random.default_rng(1), 20, 6, 3000
    X = 1.0 + 0.1 * random.standard_normal((m, d))
    np.put_along_axis(X, np.argsort(random.random((m, d)), axis=0)[:q], -50.0, axis=0)
    off = {rule: float(np.sqrt(np.mean(np.square(aggregate(rule, X, f=q) - 1.0)))) for rule in ALL}
    assert all(off[rule] < 0.2 for rule in ("median", "trimmed-mean", "mean-around-median", "phocas"))
    assert all(off[rule] > 5.0 for rule in ("mean", "krum", "multi-krum", "geometric-median"))


@pytest.mark.parametrize("rho_norm", ["sum", "mean"])
@pytest.mark.parametrize(("b", "works"), [(8, False), (12, True), (16, True)])
def test_zeno_with_12_of_20_hostile(b, works, rho_norm):
    """A quadratic whose gradient at x is x."""
    d, m, q, gamma = 200, 20, 12, 0.1
    random = np.random.default_rng(0)
    x = np.ones(d)
    honest = x + 0.5 * random.standard_normal((m - q, d))
    X = np.concatenate(
        (honest, attack("sign-flip", honest, q, scale=10.0, own=x + 0.5 * random.standard_normal((q, d))))
    )
    got = aggregate("zeno", X, b=b, loss=lambda y: 0.5 * float(y @ y), x=x, gamma=gamma, rho_norm=rho_norm)
    cosine = got @ x / np.linalg.norm(got) / np.linalg.norm(x)
    assert cosine > 0.9 if works else cosine < -0.9
