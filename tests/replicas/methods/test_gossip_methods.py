"""CHOCO and AdaGossip: a plain loop with W, the mean that one keeps and the other does not, and the matrices."""

import pytest
import torch

from baechi.errors import BaechiError
from baechi.replicas.methods import method
from baechi.replicas.methods.lockstep import Lockstep
from baechi.replicas.methods.mixing import mixing_matrix
from baechi.replicas.problems import problem

N, D = 8, 30


def consensus(name, rounds, c="top-k:10", **options):
    """Workers that only mix, from models that differ; gives them before and after."""
    data = problem("quadratic", workers=N, size=D)
    made = Lockstep(method(name, c=c, lr=1e-300, **options), data, N)
    for worker in made.workers:
        drawn = torch.randn(D, generator=torch.Generator().manual_seed(worker.index), dtype=torch.float64)
        worker.x.copy_(drawn)
    before = torch.stack([w.x for w in made.workers])
    for _ in range(rounds):
        made.step()
    return before, torch.stack([w.x for w in made.workers]), made


def spread(models):
    return float((models - models.mean(0)).norm())


@pytest.mark.parametrize(
    ("topology", "c"),
    [
        ("ring", "top-k:10"),
        ("ring", "qsgd:4"),
        ("ring", "sign"),
        ("ring", "random-k:4"),
        ("torus", "top-k:10"),
        ("complete", "top-k:10"),
    ],
)
def test_choco_keeps_the_mean_and_agrees(topology, c):
    before, after, _ = consensus("choco", 100, c, topology=topology, gamma=0.1)
    torch.testing.assert_close(after.mean(0), before.mean(0), rtol=0, atol=1e-9)
    assert spread(after) < 0.5 * spread(before)


def test_adagossip_agrees_and_does_not_keep_the_mean():
    before, after, _ = consensus("adagossip", 100, gamma=0.1)
    assert spread(after) < 0.5 * spread(before)
    assert float((after.mean(0) - before.mean(0)).norm()) > 0.1


def test_without_compression_and_gamma_1_choco_is_multiplication_with_w():
    before, after, _ = consensus("choco", 5, "identity", gamma=1.0, topology="torus")
    w = torch.tensor(mixing_matrix("torus", N), dtype=torch.float64)
    torch.testing.assert_close(after, torch.linalg.matrix_power(w, 5) @ before, rtol=0, atol=1e-12)


def test_adagossip_is_the_papers_loop():
    before, after, made = consensus("adagossip", 6, "identity", gamma=0.3, beta=0.9)
    w = torch.tensor(mixing_matrix("ring", N), dtype=torch.float64)
    x, v = before, torch.zeros_like(before)
    for t in range(1, 7):
        r = w @ x - x
        v = 0.9 * v + 0.1 * r * r
        g = torch.minimum(torch.ones_like(v), 0.3 / ((v / (1 - 0.9**t)).sqrt() + 1e-8))
        x = x + g * r
    torch.testing.assert_close(after, x, rtol=0, atol=1e-12)
    assert made.sent == [6 * 2 * D * 8] * N  # to both sides


def test_choco_diverges_where_adagossip_does_not():
    choco, adaptive = consensus("choco", 200, gamma=1.0)[1], consensus("adagossip", 200, gamma=1.0)[1]
    assert spread(choco) > 20 * spread(adaptive)


def test_a_matrix_of_ones_own():
    chain = ((0.5, 0.5, 0.0), (0.5, 0.0, 0.5), (0.0, 0.5, 0.5))
    data = problem("quadratic", workers=3, size=4)
    made = Lockstep(method("choco", c="identity", gamma=1.0, matrix=chain, lr=1e-300), data, 3)
    start = made.workers[0].x.clone()
    made.workers[1].x += 1.0
    made.step()
    assert [float((w.x - start)[0]) for w in made.workers] == pytest.approx([0.5, 0.0, 0.5])
    assert made.sent == [4 * 8, 2 * 4 * 8, 4 * 8]


@pytest.mark.parametrize("topology", ["ring", "torus", "complete"])
@pytest.mark.parametrize("count", [4, 6, 16])
def test_the_graphs_matrices_are_doubly_stochastic(topology, count):
    w = torch.tensor(mixing_matrix(topology, count), dtype=torch.float64)
    torch.testing.assert_close(w, w.T, rtol=0, atol=1e-15)
    torch.testing.assert_close(w.sum(0), torch.ones(count, dtype=torch.float64))
    assert (w >= 0).all()
    degree = {"ring": 2, "torus": {4: 2, 6: 3, 16: 4}[count], "complete": count - 1}[topology]
    assert ((w > 0).sum(1) == degree + 1).all()


@pytest.mark.parametrize("count", [1, 2])
def test_a_ring_of_one_or_two(count):
    assert torch.tensor(mixing_matrix("ring", count)).sum(0).tolist() == pytest.approx([1.0] * count)
    made = Lockstep(method("choco"), problem("quadratic", workers=count, size=4), count)
    made.step()


@pytest.mark.parametrize(
    ("options", "workers"),
    [
        ({"matrix": ((0.5, 0.5), (0.5, 0.5))}, 3),
        ({"matrix": ((0.9, 0.2), (0.2, 0.9))}, 2),
        ({"matrix": ((0.2, 0.8), (0.5, 0.5))}, 2),
        ({"matrix": ((1.5, -0.5), (-0.5, 1.5))}, 2),
        ({"topology": "torus"}, 7),
        ({"topology": "star"}, 4),
        ({"gamma": 0.0}, 4),
        ({"c": "none"}, 4),
    ],
)
def test_what_cannot_mix_is_one_error(options, workers):
    with pytest.raises(BaechiError) as caught:
        Lockstep(method("choco", **options), problem("quadratic", workers=workers, size=4), workers)
    assert caught.value.code == "B831"
