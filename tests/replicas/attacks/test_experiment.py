"""Training under attack."""

import pytest
import torch

from baechi.errors import BaechiError
from baechi.replicas.attacks import ATTACKS
from baechi.replicas.attacks.experiment import Match, Outcome, play
from baechi.replicas.attacks.table import Setting, broken, matches
from baechi.replicas.problems import problem
from baechi.replicas.rules import RULES

STEPS, RATE = 30, 0.2


@pytest.fixture(scope="module")
def bowl():
    return problem("quadratic", workers=11, size=20, heterogeneity=0.3)


@pytest.fixture(scope="module")
def peaceful(bowl):
    return play(bowl, Match("mean", None, 0, 0), steps=STEPS, rate=RATE)


def test_without_an_attack_it_is_gradient_descent(bowl, peaceful):
    x = bowl.start(0)
    for step in range(STEPS):
        x = x - RATE * torch.stack([bowl.gradient(x, i, step)[1] for i in range(11)]).mean(0)
    assert peaceful.loss == pytest.approx(bowl.loss(x))
    assert peaceful.steps == STEPS


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_learns_in_peace_and_under_noise(bowl, peaceful, rule):
    start = bowl.loss(bowl.start(0))
    for name in (None, "gaussian"):
        outcome = play(bowl, Match(rule, name, 3, 3), steps=STEPS, rate=RATE)
        assert broken(outcome, peaceful, start) == (name is not None and rule == "mean"), (name, outcome)


@pytest.mark.parametrize("corruption", ["classic", "dimensional"])
@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_is_borne_by_the_trimmed_mean(bowl, peaceful, name, corruption):
    outcome = play(bowl, Match("trimmed-mean", name, 2, 2, {}, corruption), steps=STEPS, rate=RATE)
    assert not broken(outcome, peaceful, bowl.loss(bowl.start(0)))


def test_a_dimensional_attack_breaks_krum_and_the_same_classic_one_does_not(bowl, peaceful):
    start = bowl.loss(bowl.start(0))
    lost = {
        how: broken(play(bowl, Match("krum", "gaussian", 3, 3, {}, how), steps=STEPS, rate=RATE), peaceful, start)
        for how in ("classic", "dimensional")
    }
    assert lost == {"classic": False, "dimensional": True}


def test_divergence_ends_a_match(bowl):
    outcome = play(bowl, Match("mean", "ipm", 3, 3), steps=STEPS, rate=1e60)
    assert outcome.loss is None
    assert outcome.steps < STEPS


def test_a_corruption_that_is_none(bowl):
    with pytest.raises(BaechiError, match="corruption") as caught:
        play(bowl, Match("mean", "ipm", 1, 1, {}, "total"), steps=1, rate=0.1)
    assert caught.value.code == "B824"


def test_two_processes_find_what_one_does():
    setting = Setting("regression", {"workers": 5, "size": 4}, 5, 0.1, 0)
    listed = [Match(rule, "ipm", 1, 1) for rule in ("mean", "median", "krum")]
    assert list(matches(setting, listed, 2)) == list(matches(setting, listed, 1))


def test_broken_by_accuracy_or_by_loss():
    assert broken(Outcome(9.0, 0.4, 1), Outcome(0.1, 0.9, 1), 2.0)
    assert not broken(Outcome(9.0, 0.5, 1), Outcome(0.1, 0.9, 1), 2.0)
    assert broken(Outcome(None, None, 1), Outcome(0.1, None, 1), 2.0)
    assert broken(Outcome(1.2, None, 1), Outcome(0.1, None, 1), 2.0)
    assert not broken(Outcome(1.0, None, 1), Outcome(0.1, None, 1), 2.0)


CELLS = [("krum", 0.1, True), ("mean", 10.0, True), ("krum", 10.0, False), ("mean", 0.1, False)]


def test_on_digits_small_manipulation_breaks_krum_and_large_the_mean():
    digits = problem("mnist", workers=20, hidden=32)
    calm = play(digits, Match("mean", None, 0, 0), steps=50, rate=0.1)
    assert calm.accuracy > 0.6
    for rule, epsilon, lost in CELLS:
        outcome = play(digits, Match(rule, "ipm", 6, 6, {"epsilon": epsilon}), steps=50, rate=0.1)
        assert broken(outcome, calm, 2.3) == lost, (rule, epsilon, outcome)
