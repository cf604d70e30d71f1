"""Attacks on the rounds of a method, against the plain training loop of the attacks' own experiment."""

import pytest
import torch

from baechi.errors import BaechiError
from baechi.replicas.attacks.experiment import Match, play
from baechi.replicas.methods import method
from baechi.replicas.methods.hostile import Hostile
from baechi.replicas.methods.lockstep import Lockstep
from baechi.replicas.problems import problem

M, Q, STEPS = 7, 2, 25


def bowl():
    return problem("quadratic", workers=M, size=9, heterogeneity=0.3, noise=0.1)


@pytest.mark.parametrize("rule", ["mean", "median", "krum", "trimmed-mean"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("ipm", {"epsilon": 0.5}), ("sign-flip", {}), ("label-flip", {}), ("a-little-is-enough", {})],
)
def test_synchronous_sgd_is_attacked_as_in_the_experiment(rule, name, options):
    data = bowl()
    made = Lockstep(method("sync-sgd", rule=rule, f=Q, lr=0.1), data, M, hostile=Hostile(name, Q, options))
    for _ in range(STEPS):
        made.step()
    plain = play(data, Match(rule, name, Q, Q, options), steps=STEPS, rate=0.1)
    assert data.loss(made.model()) == pytest.approx(plain.loss, rel=1e-9)


def test_local_rounds_are_attacked_where_models_are_averaged():
    data = bowl()
    made = Lockstep(method("fedavg", h=3, lr=0.1), data, M, hostile=Hostile("ipm", Q, {"epsilon": 2.0}))
    x = made.model().clone()
    own = []
    for i in range(M - Q):
        y = x.clone()
        for t in range(3):
            y -= 0.1 * data.gradient(y, i, t)[1]
        own.append(y)
    for _ in range(3):
        made.step()
    mean = sum(own) / (M - Q)
    torch.testing.assert_close(made.model(), ((M - Q) - 2.0 * Q) * mean / M, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("b", "survives"), [(0, False), (Q, True)])
def test_slsgd_survives_what_it_trims(b, survives):
    data = bowl()
    made = Lockstep(
        method("slsgd", h=3, lr=0.2, alpha=1.0, b=b), data, M, hostile=Hostile("gaussian", Q, {"sigma": 100.0})
    )
    before = data.loss(made.model())
    for _ in range(60):
        made.step()
    assert (data.loss(made.model()) < 0.1 * before) == survives


def test_noise_is_drawn_anew_in_each_round_and_again_alike():
    def models():
        made = Lockstep(method("sync-sgd"), bowl(), M, seed=3, hostile=Hostile("gaussian", Q))
        for _ in range(3):
            yield made.model().clone()
            made.step()

    first, again = list(models()), list(models())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert float((first[1] - first[0] - (first[2] - first[1])).norm()) > 1


def test_a_round_without_honest_clients_goes_on():
    p = (1e-9,) * (M - Q) + (1.0,) * Q
    made = Lockstep(method("fedavg", h=1, links="bernoulli", p=p), bowl(), M, hostile=Hostile("ipm", Q))
    for _ in range(5):
        made.step()
    assert made.model().isfinite().all()


def test_what_cannot_be_attacked_is_one_error():
    with pytest.raises(BaechiError, match="no attack 'lies'"):
        Hostile("lies", 1)
    with pytest.raises(BaechiError, match="by 0 workers"):
        Hostile("ipm", 0)
    with pytest.raises(BaechiError, match="7 hostile workers of 7"):
        Lockstep(method("sync-sgd"), bowl(), M, hostile=Hostile("ipm", M))
    with pytest.raises(BaechiError, match="without rounds"):
        method("fedasync").runner(bowl(), M, 0, hostile=Hostile("ipm", Q))
    for name, options in (("choco", {}), ("ef-sgd", {"c": "sign"})):
        with pytest.raises(BaechiError, match="between two, or of bytes") as caught:
            Lockstep(method(name, **options), bowl(), M, hostile=Hostile("ipm", Q)).step()
        assert caught.value.code == "B824"
