"""A worker for each shard of a placed model does what one for the whole would; robust rules inside rounds."""

import pytest
import torch

from baechi.replicas.methods import method
from baechi.replicas.methods.core import Gather, Mean
from baechi.replicas.methods.lockstep import Lockstep
from baechi.replicas.problems import problem

SIZES, N = (10, 6, 8), 4


class _Slice:
    """A diagonal quadratic's gradient, of one shard."""

    def __init__(self, worker, t, begin, end):
        stream = torch.Generator().manual_seed(100 * worker + t)
        self.h = torch.linspace(0.2, 1.0, 24, dtype=torch.float64)[begin:end]
        self.noise = torch.randn(24, generator=stream, dtype=torch.float64)[begin:end]

    def gradient(self, x):
        return self.h * x + self.noise

    def curvature(self, x, v):
        return self.h * v


def _train(made, begin, end, sizes, first):
    x0 = torch.linspace(-1, 1, 24, dtype=torch.float64)[begin:end]
    workers = [made.worker(i, N, x0, 5, sizes, first) for i in range(N)]
    for t in range(10):
        steps = [w.step(t, _Slice(w.index, t, begin, end)) for w in workers]
        answers = [None] * N
        while True:
            asked = []
            for step, answer in zip(steps, answers, strict=True):
                try:
                    asked.append(step.send(answer))
                except StopIteration:
                    asked.append(None)
            if asked[0] is None:
                break
            rows = torch.stack([request.tensor for request in asked])
            if isinstance(asked[0], Mean):
                answers = [rows.mean(0)] * N
            elif isinstance(asked[0], Gather):
                answers = [request.made(rows) if request.made else rows for request in asked]
            else:
                answers = [rows[list(request.peers)] for request in asked]
    return torch.stack([w.x for w in workers])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("local-sgd", {"momentum": 0.9, "h": 3}),
        ("cser", {"h": 3, "c1": "random-block:2", "c2": "random-k:3"}),
        ("cser", {"h": 3, "c1": "qsgd:8", "c2": "sign"}),
        ("ef-sgd", {"c": "top-k:3"}),
        ("qsparse-local-sgd", {"c": "random-block:3", "h": 2}),
        ("local-adaalter", {"h": 3}),
        ("savic", {"h": 3, "scaling": "adam"}),
        ("savic", {"h": 3, "scaling": "oasis"}),
        ("choco", {"c": "random-block:2"}),
        ("adagossip", {"c": "top-k:2"}),
    ],
)
def test_shards_do_what_the_whole_does(name, options):
    made = method(name, **options)
    whole = _train(made, 0, 24, SIZES, 0)
    parts = [_train(made, 0, 16, SIZES[:2], 0), _train(made, 16, 24, SIZES[2:], 2)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-12)


def test_synchronous_sgd_with_a_robust_rule():
    data = problem("quadratic", workers=5, size=7)
    made = Lockstep(method("sync-sgd", rule="median", f=1, lr=0.2), data, 5)
    x = made.model().clone()
    for t in range(6):
        x = x - 0.2 * torch.stack([data.gradient(x, i, t)[1] for i in range(5)]).sort(0).values[2]
        made.step()
    torch.testing.assert_close(made.model(), x, rtol=0, atol=1e-12)
    assert made.sent == [6 * 7 * 8] * 5


@pytest.mark.parametrize("rule", ["trimmed-mean", "krum", "geometric-median", "phocas", "centered-clipping"])
def test_a_worker_of_nan_does_not_win_in_a_robust_round(rule):
    data = problem("quadratic", workers=6, size=7, heterogeneity=0.2)
    data.centres[5] = float("nan")
    made = Lockstep(method("sync-sgd", rule=rule, f=1, lr=0.3), data, 6)
    for _ in range(40):
        made.step()
    honest = data.centres[:5].mean(0)
    assert float((made.model() - honest).abs().max()) < 0.6
