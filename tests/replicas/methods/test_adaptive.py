"""AdaGrad, AdaAlter and SAVIC: identities, a plain loop, and curvature that plain local SGD cannot follow."""

import pytest
import torch

from baechi.errors import BaechiError
from baechi.replicas.methods import method
from baechi.replicas.methods.lockstep import Lockstep
from baechi.replicas.problems import problem

N, CLOSE = 4, {"rtol": 0.0, "atol": 1e-12}


def bowl(**options):
    return problem("quadratic", **{"workers": N, "size": 24, "noise": 0.3, "heterogeneity": 1.0} | options)


def run(name, steps, data=None, workers=N, **options):
    made = Lockstep(method(name, **options), data or bowl(), workers, seed=1)
    for _ in range(steps):
        made.step()
    return made


def models(made):
    return torch.stack([w.x for w in made.workers])


def test_adagrad_is_torchs():
    data = bowl()
    mine = run("adagrad", 12, data, lr=0.5, eps=0.0, initial=0.2)
    x = torch.nn.Parameter(data.start(1))
    theirs = torch.optim.Adagrad([x], lr=0.5, initial_accumulator_value=0.2, eps=0.0)
    for t in range(12):
        x.grad = torch.stack([data.gradient(x.detach(), i, t)[1] for i in range(N)]).mean(0)
        theirs.step()
    torch.testing.assert_close(mine.model(), x.detach(), **CLOSE)


def test_adaalter_is_the_papers_loop():
    data, b2 = bowl(), torch.ones(24, dtype=torch.float64)
    x = data.start(1)
    for t in range(12):
        g = torch.stack([data.gradient(x, i, t)[1] for i in range(N)])
        x, b2 = x - 0.5 * g.mean(0) / (b2 + 0.7**2).sqrt(), b2 + (g * g).mean(0)
    torch.testing.assert_close(run("adaalter", 12, data, lr=0.5, eps=0.7).model(), x, **CLOSE)


@pytest.mark.parametrize("placeholder", ["grows", "constant"])
def test_local_adaalter_with_h_of_1_is_adaalter(placeholder):
    mine = run("local-adaalter", 20, lr=0.5, eps=0.3, h=1, placeholder=placeholder)
    torch.testing.assert_close(models(mine), models(run("adaalter", 20, lr=0.5, eps=0.3)), **CLOSE)


@pytest.mark.parametrize("placeholder", ["grows", "constant"])
def test_local_adaalter_is_the_papers_loop(placeholder):
    data, h, eps = bowl(), 3, 0.6
    x = data.start(1).expand(N, -1).clone()
    a2 = torch.ones_like(x)
    b2 = a2[0].clone()
    for t in range(1, 11):
        g = torch.stack([data.gradient(x[i], i, t - 1)[1] for i in range(N)])
        since = (t - 1) % h + 1 if placeholder == "grows" else 1
        x, a2 = x - 0.5 * g / (b2 + since * eps**2).sqrt(), a2 + g * g
        if t % h == 0:
            x, a2 = x.mean(0).expand(N, -1).clone(), a2.mean(0).expand(N, -1).clone()
            b2 = a2[0].clone()
    mine = run("local-adaalter", 10, data, lr=0.5, eps=eps, h=h, placeholder=placeholder)
    torch.testing.assert_close(models(mine), x, **CLOSE)


@pytest.mark.parametrize("h", [4, 8, 16])
def test_local_adaalter_sends_2_of_h(h):
    assert run("local-adaalter", 32, h=h).sent[0] * h == 2 * run("adagrad", 32).sent[0]


def test_savic_without_scaling_is_local_sgd_exactly():
    mine = run("savic", 20, scaling="identity", h=4)
    assert torch.equal(models(mine), models(run("local-sgd", 20, h=4)))
    assert mine.sent == run("local-sgd", 20, h=4).sent


@pytest.mark.parametrize("scaling", ["rmsprop", "adam", "oasis"])
def test_savics_scaling_is_the_same_on_all_workers_between_means(scaling):
    made = Lockstep(method("savic", scaling=scaling, h=5, lr=0.01), bowl(spread=0.5), N)
    seen = []
    for t in range(20):
        made.step()
        scale = torch.stack([w.scale for w in made.workers])
        assert torch.equal(scale, scale[:1].expand_as(scale))
        if t % 5:
            assert torch.equal(scale[0], seen[-1])
            assert t % 5 == 4 or not torch.equal(made.workers[0].x, made.workers[1].x)
        seen.append(scale[0].clone())


def test_savic_with_one_worker_and_h_of_1_is_rmsprop():
    data = bowl(workers=1)
    mine = run("savic", 12, data, 1, scaling="rmsprop", h=1, lr=0.01, beta=0.99, alpha=1e-12)
    x = torch.nn.Parameter(data.start(1))
    theirs = torch.optim.RMSprop([x], lr=0.01, alpha=0.99, eps=0.0)
    for t in range(12):
        x.grad = data.gradient(x.detach(), 0, t)[1]
        theirs.step()
    torch.testing.assert_close(mine.model(), x.detach(), **CLOSE)


def test_savic_with_one_worker_and_h_of_1_scales_as_adam_does():
    data = bowl(workers=1)
    mine = run("savic", 12, data, 1, scaling="adam", h=1, lr=0.01, beta=0.99, alpha=1e-12)
    x = torch.nn.Parameter(data.start(1))
    theirs = torch.optim.Adam([x], lr=0.01, betas=(0.0, 0.99), eps=0.0)
    for t in range(12):
        x.grad = data.gradient(x.detach(), 0, t)[1]
        theirs.step()
    torch.testing.assert_close(mine.model(), x.detach(), **CLOSE)


def test_oasis_finds_a_diagonal_hessian_at_once():
    data = bowl(spread=0.5)
    mine = run("savic", 1, data, scaling="oasis", lr=0.01)
    torch.testing.assert_close(mine.workers[2].scale, data.hessians.mean(0), **CLOSE)


@pytest.mark.parametrize("h", [1, 5, 18])
def test_scaling_solves_what_local_sgd_does_not(h):
    data = problem("quadratic", workers=8, size=24, condition=1e4, heterogeneity=1.0)
    scaled = run("savic", 180, data, 8, scaling="oasis", h=h, lr=0.5, alpha=1e-8)
    plain = run("local-sgd", 180, data, 8, h=h, lr=0.5)
    assert data.loss(plain.model()) > 1e-5
    assert data.loss(scaled.model()) < 1e-25


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("savic", {"scaling": "adagrad"}),
        ("savic", {"beta": 1.0}),
        ("savic", {"alpha": 0.0}),
        ("local-adaalter", {"placeholder": "paper"}),
        ("local-adaalter", {"h": 0}),
        ("adaalter", {"eps": 0.0, "initial": 0.0}),
        ("adagrad", {"eps": -1.0}),
    ],
)
def test_options_out_of_range_are_one_error(name, options):
    with pytest.raises(BaechiError) as caught:
        method(name, **options)
    assert caught.value.code == "B831"
