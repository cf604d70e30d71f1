"""The break conditions of inner-product manipulation against the rules themselves."""

from math import inf

import numpy as np
import pytest

from baechi.errors import BaechiError
from baechi.replicas import aggregate, attack
from baechi.replicas.attacks.breaks import CONDITIONS, breaking_ratio, breaks
from baechi.replicas.attacks.weakness import weaknesses

M, D = 25, 3000
EPSILONS, RATIOS = (0.1, 0.5, 1.0, 2.0, 10.0), (0.1, 1.0, 2.0, 3.5)
CASES = {"mean": 12, "median": 12, "krum": 6}


@pytest.mark.parametrize(("rule", "q"), CASES.items())
def test_60_cells(rule, q):
    random = np.random.default_rng(7)
    for epsilon in EPSILONS:
        for ratio in RATIOS:
            honest = ratio + random.standard_normal((M - q, D))
            sent = np.concatenate((honest, attack("ipm", honest, q, epsilon=epsilon)))
            turned = bool(aggregate(rule, sent, f=q).mean() < 0)
            assert breaks(rule, M, q, epsilon=epsilon, ratio=ratio) == turned, (epsilon, ratio)


OTHERS = {"trimmed-mean": 0.15, "geometric-median": 0.15, "multi-krum": 0.1, "phocas": 0.15, "mean-around-median": 0.15}


@pytest.mark.parametrize(("rule", "small"), OTHERS.items())
def test_the_other_rules(rule, small):
    random = np.random.default_rng(8)
    for q in (6, 11):
        for epsilon in (0.1, 1.0, 10.0):
            for ratio in (small, 1.0, 3.0):
                honest = ratio + random.standard_normal((M - q, D))
                sent = np.concatenate((honest, attack("ipm", honest, q, epsilon=epsilon)))
                turned = bool(aggregate(rule, sent, f=q).mean() < 0)
                assert breaks(rule, M, q, epsilon=epsilon, ratio=ratio) == turned, (q, epsilon, ratio)


def test_thresholds_of_the_paper():
    assert not breaks("mean", 25, 12, epsilon=1.08, ratio=1.0)
    assert breaks("mean", 25, 12, epsilon=1.09, ratio=1.0)
    assert breaking_ratio("mean", 25, 6, epsilon=3.17) == inf
    assert breaking_ratio("mean", 25, 6, epsilon=3.16) == 0.0
    assert breaking_ratio("median", 25, 12, epsilon=10.0) == pytest.approx(1.668, abs=0.005)  # E[max of 13 N(0, 1)]
    assert breaking_ratio("krum", 25, 12, epsilon=10.0) == inf
    right = 11.0
    expected = ((right - (0.01 + 0.2) / 14) / 1.1**2) ** 0.5
    assert breaking_ratio("krum", 25, 11, epsilon=0.1) == pytest.approx(expected, rel=2e-3)
    assert all(not breaks(rule, 25, 0, epsilon=10.0, ratio=0.1) for rule in CONDITIONS)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rule": "zeno"}, "no break condition"),
        ({"rule": "mean", "q": 25}, "25 hostile"),
        ({"rule": "mean", "epsilon": -1.0}, "epsilon -1"),
        ({"rule": "phocas", "q": 13}, "does not bear 13"),
    ],
)
def test_bad_input(options, says):
    with pytest.raises(BaechiError, match=says) as caught:
        breaks(**{"m": 25, "q": 5, "epsilon": 1.0, "ratio": 1.0, **options})
    assert caught.value.code == "B824"


def test_what_a_person_is_told():
    assert weaknesses("zeno", 20, f=12) == []
    assert weaknesses("median", 20, f=2) == []
    assert weaknesses("zeno", 20, f=8, q=12) == ["zeno is told to bear 8 hostile peers, and there are 12"]
    assert any("proved for 21" in line for line in weaknesses("krum", 20, f=9))
    assert any("epsilon 0.1 while" in line for line in weaknesses("krum", 25, f=11))
    assert any("what bears half" in line for line in weaknesses("median", 20, f=2, q=10))
    assert any("breaks by inner-product" in line for line in weaknesses("mean", 20, f=0, q=5))
