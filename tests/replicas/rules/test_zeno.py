"""Zeno's scores, by hand, and Zeno++."""

import numpy as np
import pytest
import torch

from baechi.errors import BaechiError
from baechi.replicas import aggregate
from baechi.replicas.rules.stack import Stack
from baechi.replicas.rules.zeno import zeno_scores
from baechi.replicas.rules.zeno_async import zeno_async


def _loss(y):
    return 0.5 * float(y @ y)


def test_scores_by_hand():
    X, x = np.array([[1.0, 1.0], [-1.0, 0.0], [np.nan, 0.0]]), np.array([1.0, 1.0])
    for norm, share in {"sum": 1.0, "mean": 0.5}.items():
        scores = zeno_scores(Stack(X), loss=_loss, x=x, gamma=0.5, rho=0.1, rho_norm=norm)
        np.testing.assert_allclose(scores, [1.0 - 0.25 - 0.2 * share, 1.0 - 0.5 * (2.25 + 1.0) - 0.1 * share])


def test_a_loss_that_is_not_finite_is_never_chosen():
    X = np.array([[1.0], [2.0], [3.0]])
    got = aggregate("zeno", X, b=1, loss=lambda y: np.nan if y[0] < -1.5 else float(y[0]), x=np.zeros(1), gamma=1.0)
    assert got == [1.0]
    with pytest.raises(BaechiError, match="finite loss") as caught:
        aggregate("zeno", X, b=1, loss=lambda y: np.nan, x=np.zeros(1), gamma=1.0)
    assert caught.value.code == "B823"


def test_the_loss_gets_parameters_as_the_vectors_are():
    X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    x = torch.ones(3)
    whole = aggregate("zeno", X, b=1, loss=_loss, x=x, gamma=0.1)
    parts = aggregate(
        "zeno", [X[:, :1], X[:, 1:]], b=1, loss=lambda y: _loss(torch.cat(y)), x=[x[:1], x[1:]], gamma=0.1
    )
    assert torch.equal(torch.cat(parts), whole)
    with pytest.raises(BaechiError, match="x has shapes") as caught:
        aggregate("zeno", X, b=1, loss=_loss, x=torch.ones(4), gamma=0.1)
    assert caught.value.code == "B823"


def test_one_update_at_a_time():
    v = np.array([3.0, 4.0])
    np.testing.assert_allclose(
        zeno_async(np.array([30.0, 41.0]), v, gamma=0.1), np.array([30.0, 41.0]) * 5 / 50.8035, rtol=1e-5
    )
    assert zeno_async(-v, v, gamma=0.1) is None
    assert zeno_async(np.array([np.nan, 1.0]), v, gamma=0.1) is None
    assert zeno_async(np.zeros(2), v, gamma=0.1) is None
    shards = zeno_async(
        [torch.tensor([3.0]), torch.tensor([4.0])], [torch.tensor([3.0]), torch.tensor([4.0])], gamma=0.1
    )
    assert torch.allclose(torch.cat(shards), torch.tensor([3.0, 4.0]))
    with pytest.raises(BaechiError, match="trusted") as caught:
        zeno_async(v, np.array([np.inf, 0.0]), gamma=0.1)
    assert caught.value.code == "B823"
    with pytest.raises(BaechiError, match="fit") as caught:
        zeno_async(v, np.zeros(3), gamma=0.1)
    assert caught.value.code == "B823"
    with pytest.raises(BaechiError, match="gamma") as caught:
        zeno_async(v, v, gamma=-1.0)
    assert caught.value.code == "B822"
