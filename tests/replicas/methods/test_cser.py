"""CSER's identities (NeurIPS 2020), to 1e-9: what its error reset keeps, and what it is at its ends."""

import pytest
import torch

from baechi.errors import BaechiError
from baechi.replicas.methods import method
from baechi.replicas.methods.lockstep import Lockstep
from baechi.replicas.problems import problem

N, D = 4, 64
CLOSE = {"rtol": 0.0, "atol": 1e-9}


def bowl(**options):
    return problem("quadratic", workers=N, size=D, heterogeneity=1.0, spread=0.3, noise=0.5, **options)


def run(name, steps, **options):
    made = Lockstep(method(name, **options), bowl(), N, seed=2)
    for _ in range(steps):
        made.step()
    return made


def models(made):
    return torch.stack([w.x for w in made.workers])


ANY = ["random-block:4", "random-k:4", "top-k:4", "sign", "qsgd:8", "qsgd:2:shrunk"]


@pytest.mark.parametrize("c", ANY)
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "nesterov": True}])
def test_models_without_their_errors_are_the_same_on_all_workers(c, options):
    made = Lockstep(method("cser", c1=c, c2=c, h=3, lr=0.05, **options), bowl(), N)
    for _ in range(20):
        made.step()
        apart = torch.stack([w.x - w.e for w in made.workers])
        torch.testing.assert_close(apart, apart[:1].expand_as(apart), **CLOSE)


@pytest.mark.parametrize("c", ANY)
def test_the_mean_model_follows_the_mean_gradient(c):
    data = bowl()
    made = Lockstep(method("cser", c1=c, c2=c, h=3, lr=0.05), data, N)
    for t in range(20):
        before = models(made)
        mean_gradient = torch.stack([data.gradient(before[i], i, t)[1] for i in range(N)]).mean(0)
        made.step()
        torch.testing.assert_close(models(made).mean(0), before.mean(0) - 0.05 * mean_gradient, **CLOSE)


def test_it_is_local_sgd_when_no_gradient_is_sent_and_all_of_the_error():
    mine = run("cser", 24, c1="identity", c2="none", h=6)
    torch.testing.assert_close(models(mine), models(run("local-sgd", 24, h=6)), **CLOSE)


def test_it_is_synchronous_sgd_when_all_is_sent():
    mine = run("cser", 24, c1="identity", c2="identity", h=6)
    torch.testing.assert_close(models(mine), models(run("sync-sgd", 24)), **CLOSE)


def test_signs_in_blocks_leave_smaller_errors_than_random_blocks_in_as_many_bytes():
    scales = torch.logspace(0, 2, 1024).double()  # of the noise: rare and frequent embeddings
    left, sent = [], []
    for c in ({"c1": "sign:64", "h": 1}, {"c1": "random-block:32", "h": 1}, {"c1": "identity", "h": 32}):
        data = problem("quadratic", workers=N, size=1024)
        data.centres *= scales
        made = Lockstep(method("cser", c2="none", momentum=0.9, lr=0.01, **c), data, N)
        total = 0.0
        for t in range(64):
            made.step()
            total += float((models(made) - models(made).mean(0)).norm()) * (t >= 32)
        left.append(total)
        sent.append(made.sent[0])
    assert sent[0] == sent[1] == sent[2]
    assert left[0] < 0.5 * min(left[1:])


@pytest.mark.parametrize(("r1", "r2", "h"), [(16, 16, 4), (8, 64, 8), (4, 16, 2)])
def test_the_ratio_on_the_wire_is_the_formula(r1, r2, h):
    steps = 8 * h
    mine = run("cser", steps, c1=f"random-block:{r1}", c2=f"random-block:{r2}", h=h)
    sync = run("sync-sgd", steps)
    assert sync.sent[0] == steps * D * 8
    assert sync.sent[0] / mine.sent[0] == pytest.approx(1 / (1 / r2 + 1 / (r1 * h)))


def test_the_published_ratio():
    assert (
        run("sync-sgd", 16).sent[0] / run("cser", 16, c1="random-block:16", c2="random-block:16", h=4).sent[0] == 12.8
    )


@pytest.mark.parametrize("options", [{"h": 0}, {"c1": "none"}, {"c2": "qsgd:2"}, {"lr": -1.0}, {"momentum": 1.0}])
def test_options_out_of_range_are_one_error(options):
    with pytest.raises(BaechiError) as caught:
        method("cser", **options)
    assert caught.value.code == "B831"
