"""Limits, rates and noise of asynchronous SGD against published numbers, roots of polynomials and simulated runs."""

import math

import numpy as np
import pytest
from scipy.special import lambertw

from baechi.replicas.asgd import asgd, growth, race, run_limit
from baechi.replicas.delays import Delay, Erlang, Histogram, fixed
from baechi.replicas.sdde import best_product, discrete_best, discrete_limit, discrete_root, limit, root, variance

EXPONENTIAL = Erlang(1, 1.0)


@pytest.mark.parametrize(("missed", "known"), [(1, 1.0), (2, 0.6180), (5, 0.2846), (10, 0.1495), (20, 0.0766)])
def test_the_discrete_limit_is_where_a_run_begins_to_grow(missed: int, known: float) -> None:
    assert discrete_limit(missed) == pytest.approx(known, abs=5e-5)
    for gain, grows in ((0.99 * discrete_limit(missed), False), (1.01 * discrete_limit(missed), True)):
        x = [1.0] * (missed + 1)
        for _ in range(20_000):
            x.append(x[-1] - gain * x[-1 - missed])
        assert (max(map(abs, x[-2 * missed - 4 :])) > 1) == grows


@pytest.mark.parametrize("missed", [0, 1, 2, 5, 20])
def test_the_discrete_optimum_is_the_best_of_a_grid(missed: int) -> None:
    gain, left = discrete_best(missed)
    assert gain == missed**missed / (missed + 1) ** (missed + 1)
    assert left == missed / (missed + 1)
    assert abs(discrete_root(missed, gain)) == pytest.approx(left, abs=1e-4)
    grid = np.linspace(0.02, 0.98, 49) * discrete_limit(missed)
    assert min(abs(discrete_root(missed, e)) for e in grid) >= left - 1e-9


@pytest.mark.parametrize(("workers", "known"), [(2, 1.000), (4, 0.445), (8, 0.209), (16, 0.101)])
def test_workers_of_one_speed_miss_exactly_the_others_and_hit_the_limit(workers: int, known: float) -> None:
    found = race([fixed(1.0)] * workers, 40_000, seed=1)
    assert set(found.staleness[workers:].tolist()) == {workers - 1}
    measured = run_limit(fixed(1.0), workers, most=2.1, seed=1)
    assert measured == pytest.approx(known, abs=1e-3)
    assert measured == pytest.approx(limit(fixed(1.0), workers) / workers, rel=0.01)


@pytest.mark.parametrize("law", [EXPONENTIAL, Erlang(4, 1.0), Histogram((0.5, 2.0), (2, 1))])
def test_workers_of_random_speed_miss_the_others_on_average(law: Delay) -> None:
    found = race([law] * 6, 60_000, seed=2)
    assert found.staleness[100:].mean() == pytest.approx(5, rel=0.01)
    assert found.seconds[-1] / 60_000 == pytest.approx(law.mean / 6, rel=0.02)


def test_a_slow_worker_is_staler_and_rarer() -> None:
    found = race([fixed(1.0)] * 3 + [fixed(4.0)], 13_000, seed=3)
    slow = found.worker == 3
    assert slow.mean() == pytest.approx(1 / 13, rel=0.01)
    assert found.staleness[slow][2:].mean() == pytest.approx(12, abs=0.1)


@pytest.mark.parametrize("workers", [1, 2, 5, 20])
@pytest.mark.parametrize("product", [0.1, 0.36, 0.8, 1.3])
def test_the_rate_of_a_fixed_time_is_that_of_a_run(workers: int, product: float) -> None:
    expected = growth(race([fixed(0.5)] * workers, 4000 * workers, seed=0), product / workers)
    if workers == 1:
        expected = math.log(abs(1 - product)) / 0.5
    assert root(fixed(0.5), workers, product).real == pytest.approx(expected, rel=0.02, abs=0.01)


def test_the_discrete_rate_becomes_lamberts_for_many_workers() -> None:
    assert abs(root(fixed(1.0), 200, 0.8) - complex(lambertw(-0.8, 0))) < 0.01


def test_exponential_times_bear_one_and_a_half_times_the_fixed_limit() -> None:
    for workers in (2, 4, 8, 16):
        fixed_limit = limit(fixed(1.0), workers) / workers
        assert growth(race([EXPONENTIAL] * workers, 40_000, seed=4), 1.5 * fixed_limit) < 0
        assert limit(EXPONENTIAL, workers) / workers > 1.25 * fixed_limit


def test_exponential_times_have_a_limit_in_mean_square_all_the_same() -> None:
    # E[x^2] over many runs, from the same start, just below and just above
    for workers in (2, 4):
        edge = limit(EXPONENTIAL, workers) / workers
        below, above = (_mean_square(workers, factor * edge) for factor in (0.9, 1.15))
        assert below < 1 < above
        assert run_limit(EXPONENTIAL, workers, most=2.1) > edge


def _mean_square(workers: int, gain: float, runs: int = 200_000, updates: int = 25) -> float:
    random = np.random.default_rng(5)
    x, y = np.ones(runs), np.ones((runs, workers))
    for _ in range(updates):
        chosen = random.integers(0, workers, runs)
        x = x - gain * y[np.arange(runs), chosen]
        y[np.arange(runs), chosen] = x
    return float((x**2).mean())


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
@pytest.mark.parametrize("law", [fixed(1.0), EXPONENTIAL])
def test_the_noise_is_that_of_a_long_run(law: Delay, workers: int) -> None:
    gain = 0.5 / workers
    x = asgd([1.0], gain, race([law] * workers, 150_000, seed=6), noise=1.0, seed=7)[5000:, 0]
    assert x.var() / gain**2 == pytest.approx(variance(law, workers, 0.5), rel=0.05)


def test_the_noise_of_other_laws_is_that_of_the_delay_equation() -> None:
    law = Erlang(4, 0.5)
    x = asgd([2.0], 0.25 / 32, race([law] * 16, 200_000, seed=8), noise=1.0, seed=9)[5000:, 0]
    assert x.var() / (0.25 / 32) ** 2 == pytest.approx(variance(law, 16, 0.25), rel=0.05)
    assert variance(law, 16, 3.0) == math.inf


@pytest.mark.parametrize("shape", [2, 3, 6])
def test_the_best_product_of_an_erlang_time(shape: int) -> None:
    assert best_product(Erlang(shape, 1.0), 8) == pytest.approx((shape / (shape + 1)) ** (shape + 1), rel=0.01)


def test_the_best_product_of_two_curvatures_evens_out_their_rates() -> None:
    # one worker: the classical 2/(h + l), with (h - l)/(h + l) left after each update
    assert best_product(fixed(1.0), 1, 9.0) == pytest.approx(2 / (1 + 1 / 9), rel=1e-4)
    product = best_product(fixed(1.0), 8, 9.0)
    steep, flat = root(fixed(1.0), 8, product).real, root(fixed(1.0), 8, product / 9).real
    assert steep == pytest.approx(flat, rel=1e-3)


def test_some_of_the_workers_are_enough_for_a_limit_by_running() -> None:
    assert limit(Erlang(8, 1.0), 16) == pytest.approx(1.858, rel=0.01)
    assert limit(Erlang(2, 1.0), 4) < 4.0
