"""The rules against published vectors, other projects' results, and each other's forms."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from baechi.errors import BaechiError
from baechi.replicas import aggregate
from baechi.replicas.rules import RULES, rule_options

SEVEN = np.array(
    [[1, 2, -1], [1.2, 1.9, -0.8], [0.9, 2.2, -1.1], [1.1, 2.1, -0.9], [-10, 30, 5], [0.5, -20, 7], [1.05, 2.05, -1.2]]
)
THREE = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "rules.json").read_text())
COORDINATE = ("mean", "median", "mean-around-median", "trimmed-mean", "phocas")
ALL = tuple(rule for rule in RULES if rule != "zeno")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("trimmed-mean", [0.9833333333, 2.05, -0.9]),
        ("median", [1, 2.05, -0.9]),
        ("mean-around-median", [1.05, 2.05, -1]),
        ("phocas", [1.05, 2.05, -1]),
        ("krum", [1, 2, -1]),
        ("multi-krum", [1.05, 2.05, -1]),
        ("geometric-median", [1.0187058753, 2.032151542, -0.9865809137]),
    ],
)
def test_seven_vectors(rule, expected):
    np.testing.assert_allclose(aggregate(rule, SEVEN, f=2), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("rule", "expected"), [("trimmed-mean", [4, 5, 6]), ("krum", [1, 2, 3]), ("multi-krum", [2.5, 3.5, 4.5])]
)
def test_byzfl_unit_vectors(rule, expected):
    np.testing.assert_allclose(aggregate(rule, THREE, f=1), expected)


@pytest.mark.parametrize("rule", [name for name in GOLDEN if name in RULES])
def test_400_rounds_as_byzfl_and_flower(rule):
    for seed, expected in enumerate(GOLDEN[rule]):
        X, f = _round(seed)
        y = aggregate(rule, X, f=f)
        assert float(y @ np.cos(np.arange(1.0, len(y) + 1.0))) == pytest.approx(expected, rel=1e-9, abs=1e-9), seed


def _round(seed):
    """As tools/golden_rules.py draws it."""
    random = np.random.default_rng(seed)
    m, d = int(random.integers(5, 26)), int(random.integers(1, 21))
    f = int(random.integers(0, (m - 3) // 2 + 1))
    X = random.standard_normal((m, d)) + random.standard_normal(d)
    X[:f] *= 10.0 ** random.uniform(-1, 3)
    return X, f


@pytest.mark.parametrize("m", [6, 7])
def test_coordinate_rules_as_written_in_the_papers_over_many_blocks(m):
    X = np.random.default_rng(m).standard_normal((m, 60_001))
    b, ordered = 2, np.sort(X, axis=0)
    trimmed = ordered[b : m - b].mean(0)
    median = (ordered[(m - 1) // 2] + ordered[m // 2]) / 2

    def around(centre):
        nearest = np.argsort(np.abs(X - centre), axis=0)[: m - b]
        return np.take_along_axis(X, nearest, 0).mean(0)

    for rule, expected in {
        "mean": X.mean(0),
        "median": median,
        "trimmed-mean": trimmed,
        "mean-around-median": around(median),
        "phocas": around(trimmed),
    }.items():
        np.testing.assert_allclose(aggregate(rule, X, f=b), expected, atol=1e-12, err_msg=rule)


def test_centered_clipping_as_in_its_paper():
    X, v = SEVEN.copy(), np.array([1.0, 1.0, 1.0])
    found = aggregate("centered-clipping", X, radius=0.7, start=v, iterations=3)
    for _ in range(3):
        away = X - v
        v = v + (away * np.minimum(1, 0.7 / np.linalg.norm(away, axis=1))[:, None]).mean(0)
    np.testing.assert_allclose(found, v, atol=1e-12)


def test_a_hostile_first_vector_far_away_does_not_drown_the_distances():
    X = np.random.default_rng(3).standard_normal((9, 40))
    expected = aggregate("krum", X[1:], f=1), aggregate("geometric-median", X)
    X[0] *= 1e12
    np.testing.assert_array_equal(aggregate("krum", X, f=2), expected[0])
    assert np.linalg.norm(aggregate("geometric-median", X) - expected[1]) < 1.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rule", ALL)
def test_any_float_type_of_torch(rule, dtype):
    X = torch.from_numpy(SEVEN).to(dtype)
    y = aggregate(rule, X, f=2)
    assert y.dtype == dtype
    exact = aggregate(rule, X.double(), f=2)
    assert torch.allclose(y.double(), exact, rtol=4 * torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("rule", ALL)
def test_arrays_tensors_and_shards_agree(rule):
    whole = aggregate(rule, SEVEN, f=2)
    assert isinstance(whole, np.ndarray)
    np.testing.assert_array_equal(aggregate(rule, torch.from_numpy(SEVEN), f=2).numpy(), whole)
    shards = aggregate(rule, iter([SEVEN[:, :1], torch.from_numpy(SEVEN[:, 1:].copy())]), f=2)
    assert [type(shard) for shard in shards] == [np.ndarray, torch.Tensor]
    np.testing.assert_allclose(np.concatenate([np.asarray(shard) for shard in shards]), whole, rtol=1e-12)
    read_only = SEVEN.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(aggregate(rule, read_only[::-1][::-1], f=2), whole)


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rule", ALL)
def test_a_vector_that_is_not_finite_is_one_hostile_peer_less(rule, spoilt):
    X = np.insert(SEVEN, 2, [0.0, spoilt, 0.0], axis=0)
    np.testing.assert_allclose(aggregate(rule, X, f=3), aggregate(rule, SEVEN, f=2), rtol=1e-12)
    shards = aggregate(rule, [X[:, :1], X[:, 1:]], f=3)
    np.testing.assert_allclose(np.concatenate(shards), aggregate(rule, SEVEN, f=2), rtol=1e-12)


@pytest.mark.parametrize("rule", ALL)
def test_more_that_are_not_finite_than_borne_still_leave_the_others(rule):
    X = np.full((6, 2), np.nan)
    X[4:] = [[1.0, 2.0], [1.0, 2.0]]
    np.testing.assert_allclose(aggregate(rule, X, f=1), [1.0, 2.0])


@pytest.mark.parametrize("rule", ALL)
def test_a_finite_vector_whose_sum_overflows_is_no_infinity(rule):
    X = torch.ones(7, 3)
    X[0] = 3e38
    assert torch.isfinite(aggregate(rule, X, f=1)).all() or rule in ("mean", "centered-clipping")


@pytest.mark.parametrize("rule", [rule for rule in ALL if rule != "mean"])
def test_finite_vectors_whose_squares_overflow_do_not_win(rule):
    X = np.random.default_rng(0).standard_normal((9, 5))
    X[[0, 3]] = 1e300
    assert np.abs(aggregate(rule, X, f=2)).max() < 5.0


@pytest.mark.parametrize("rule", ALL)
def test_no_vectors_is_an_error(rule):
    for nobody in (np.zeros((0, 3)), [], torch.full((4, 2), float("nan"))):
        with pytest.raises(BaechiError, match="peers") as caught:
            aggregate(rule, nobody, f=0)
        assert caught.value.code == ("B823" if len(nobody) or not isinstance(nobody, list) else caught.value.code)


@pytest.mark.parametrize(
    ("X", "says"),
    [
        (np.zeros(3), "shape"),
        ([np.zeros((3, 2)), np.zeros((4, 2))], "shape"),
        ([np.zeros(3), np.zeros(3), np.zeros(3)], "shape"),
        (torch.zeros(3, 2, dtype=torch.int64), "int64"),
        (np.zeros((3, 2), complex), "complex"),
        (np.array([["a"]]), "U1"),
        ("abc", "str"),
        (3, "int"),
    ],
)
def test_what_is_no_vectors(X, says):
    with pytest.raises(BaechiError, match=says) as caught:
        aggregate("median", X)
    assert caught.value.code == "B823"


@pytest.mark.parametrize(
    ("rule", "options", "says"),
    [
        ("best", {}, "no aggregation rule"),
        ("krum", {}, "needs f"),
        ("phocas", {}, "needs b"),
        ("krum", {"f": 4}, "4 hostile of 7"),
        ("trimmed-mean", {"b": 4}, "4 hostile of 7"),
        ("median", {"f": 7}, "7 hostile of 7"),
        ("trimmed-mean", {"b": -1}, "-1 hostile"),
        ("trimmed-mean", {"b": 1.5}, "1.5 hostile"),
        ("trimmed-mean", {"b": 1, "f": 1}, "both"),
        ("median", {"radius": 1}, "no option radius"),
        ("multi-krum", {"f": 1, "m": 0}, "best 0 of 7"),
        ("multi-krum", {"f": 1, "k": 8}, "best 8 of 7"),
        ("geometric-median", {"tolerance": -1.0}, "tolerance"),
        ("centered-clipping", {"radius": 0.0}, "radius"),
        ("zeno", {"b": 1, "loss": float, "x": SEVEN[0], "gamma": 0.0}, "gamma"),
        ("zeno", {"b": 1, "loss": float, "x": SEVEN[0], "gamma": 1.0, "rho_norm": "max"}, "rho_norm"),
        ("zeno", {"b": 7, "loss": float, "x": SEVEN[0], "gamma": 1.0}, "7 hostile of 7"),
    ],
)
def test_options_out_of_range(rule, options, says):
    with pytest.raises(BaechiError, match=says) as caught:
        aggregate(rule, SEVEN, **options)
    assert caught.value.code == "B822"


def test_f_and_b_are_the_same_and_every_rule_takes_them():
    for rule in ALL:
        np.testing.assert_array_equal(aggregate(rule, SEVEN, f=2), aggregate(rule, SEVEN, b=2))
    assert "m" in rule_options("multi-krum")
    np.testing.assert_array_equal(aggregate("multi-krum", SEVEN, f=2, k=3), aggregate("multi-krum", SEVEN, f=2, m=3))


def test_the_rules_do_not_touch_what_they_are_given():
    for rule in ALL:
        X = torch.from_numpy(SEVEN.copy()).requires_grad_()
        aggregate(rule, X, f=2)
        np.testing.assert_array_equal(X.detach().numpy(), SEVEN)
