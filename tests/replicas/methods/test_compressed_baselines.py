"""EF-SGD and QSparse-local-SGD: what they keep, and what they are at their ends."""

import pytest
import torch

from baechi.replicas.methods import method
from baechi.replicas.methods.lockstep import Lockstep
from baechi.replicas.problems import problem

N, CLOSE = 4, {"rtol": 0.0, "atol": 1e-9}
ANY = ["random-block:4", "random-k:4", "top-k:4", "sign", "qsgd:8"]


def bowl():
    return problem("quadratic", workers=N, size=48, noise=0.3)


def run(name, steps, **options):
    made = Lockstep(method(name, **options), bowl(), N, seed=1)
    for _ in range(steps):
        made.step()
    return made


def models(made):
    return torch.stack([w.x for w in made.workers])


@pytest.mark.parametrize("name", ["ef-sgd", "qsparse-local-sgd"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_with_everything_sent_they_are_plain(name, momentum):
    mine = run(name, 16, c="identity", momentum=momentum, lr=0.05)
    plain = "sync-sgd" if name == "ef-sgd" else "local-sgd"
    torch.testing.assert_close(models(mine), models(run(plain, 16, momentum=momentum, lr=0.05)), **CLOSE)


@pytest.mark.parametrize("c", ANY)
def test_nothing_is_lost_in_error_feedback(c):
    """x - mean_i e_i follows SGD with the mean gradient taken at x (Karimireddy et al., 2019, lemma 3's iterate)."""
    data = bowl()
    made = Lockstep(method("ef-sgd", c=c, lr=0.05), data, N)
    for t in range(20):
        x, e = made.workers[0].x.clone(), torch.stack([w.e for w in made.workers]).mean(0)
        gradient = torch.stack([data.gradient(x, i, t)[1] for i in range(N)]).mean(0)
        made.step()
        after = made.workers[0].x - torch.stack([w.e for w in made.workers]).mean(0)
        torch.testing.assert_close(after, x - e - 0.05 * gradient, **CLOSE)
        torch.testing.assert_close(models(made), made.workers[0].x.expand(N, -1), **CLOSE)


@pytest.mark.parametrize("c", ANY)
def test_nothing_is_lost_in_qsparse(c):
    """agreed - mean_i e_i after a round is the mean of the local models less mean_i e_i before it."""
    made = Lockstep(method("qsparse-local-sgd", c=c, h=3, lr=0.05), bowl(), N)
    local = Lockstep(method("local-sgd", h=1000, lr=0.05), bowl(), N)
    for _ in range(6):
        e = torch.stack([w.e for w in made.workers]).mean(0)
        for mine, other in zip(made.workers, local.workers, strict=True):
            other.x.copy_(mine.x)
        for _ in range(3):
            made.step()
            local.step()
        after = made.workers[0].agreed - torch.stack([w.e for w in made.workers]).mean(0)
        torch.testing.assert_close(after, models(local).mean(0) - e, **CLOSE)


def test_bytes():
    assert run("ef-sgd", 10, c="top-k:4").sent == [10 * 12 * (8 + 4)] * N
    assert run("qsparse-local-sgd", 10, c="sign", h=5).sent == [2 * (8 + 6)] * N
