"""Roots of the characteristic equation against Lambert's W, polynomials, closed forms and the argument principle."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import lambertw

from baechi.replicas.characteristic import leading_root, merging, stable_rate, stationary_variance
from baechi.replicas.delays import Delay, Erlang, Histogram, fixed


def left(law: Delay, a: float, s: complex) -> complex:
    return s + a * complex(law.transform(np.array(s)))


@pytest.mark.parametrize("delay", [0.02, 1.0, 30.0])
def test_a_fixed_delay_is_stable_below_half_pi(delay: float) -> None:
    assert stable_rate(fixed(delay)) * delay == pytest.approx(math.pi / 2, rel=1e-9)


@pytest.mark.parametrize("product", [0.01, 0.2, 0.3678, 0.368, 0.6, 1.0, 1.5, 1.5707, 2.0, 5.0, 40.0])
def test_the_leading_root_of_a_fixed_delay_is_lamberts_w(product: float) -> None:
    delay = 0.3
    assert leading_root(fixed(delay), product / delay) == pytest.approx(
        complex(lambertw(-product, 0)) / delay, rel=1e-6
    )


def test_a_fixed_delay_is_fastest_at_one_over_e_and_there_e_times_as_fast() -> None:
    a, root = merging(fixed(1.0))
    assert a == pytest.approx(1 / math.e, rel=1e-9)
    assert -root / a == pytest.approx(math.e, rel=1e-6)
    rates = [-leading_root(fixed(1.0), p).real for p in np.linspace(0.05, 1.55, 61)]
    assert max(rates) <= 1.0 + 1e-9


@pytest.mark.parametrize(("product", "gain"), [(0.05, 1.05), (0.2, 1.30), (0.6, 1.12), (1.0, 0.32)])
def test_how_much_faster_than_fresh_gradients(product: float, gain: float) -> None:
    assert -leading_root(fixed(2.0), product / 2).real / (product / 2) == pytest.approx(gain, abs=0.006)


@pytest.mark.parametrize("shape", [2, 3, 4, 8, 40])
def test_an_erlang_delay_is_stable_below_its_closed_form(shape: int) -> None:
    angle = math.pi / (2 * shape)
    assert stable_rate(Erlang(shape, 3.0)) * 3 == pytest.approx(shape * math.tan(angle) / math.cos(angle) ** shape)


def test_an_exponential_delay_is_always_stable() -> None:
    assert stable_rate(Erlang(1, 1.0)) == math.inf
    for product in (0.3, 5.0, 500.0):
        assert leading_root(Erlang(1, 1.0), product).real == pytest.approx(-0.5)


@pytest.mark.parametrize("shape", [1, 2, 4, 7])
@pytest.mark.parametrize("product", [0.1, 0.3, 0.5, 1.5, 3.0])
def test_the_leading_root_of_an_erlang_delay_is_a_polynomials(shape: int, product: float) -> None:
    polynomial = np.poly1d([1.0, 0.0])
    for _ in range(shape):
        polynomial = polynomial * np.poly1d([1 / shape, 1.0])
    roots = np.roots(polynomial + np.poly1d([product]))
    assert leading_root(Erlang(shape, 1.0), product).real == pytest.approx(max(roots.real), rel=1e-4)


@settings(max_examples=15)
@given(
    st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.1, 1.0)), min_size=1, max_size=6).filter(
        lambda bins: max(t for t, _ in bins) > 0.1
    ),
    st.floats(0.05, 4.0),
)
def test_no_root_of_a_measured_law_is_right_of_the_leading_one(bins: list[tuple[float, float]], a: float) -> None:
    law = Histogram(tuple(t for t, _ in bins), tuple(w for _, w in bins))
    root = leading_root(law, a)
    assert abs(left(law, a, root)) < 1e-6 * max(1, a)
    line = root.real + 0.01
    edge = a * max(1.0, math.exp(-line * law.longest)) + abs(line) + 1
    corners = [
        complex(line, -edge),
        complex(edge, -edge),
        complex(edge, edge),
        complex(line, edge),
        complex(line, -edge),
    ]
    path = np.concatenate([np.linspace(p, q, 40_000) for p, q in pairwise(corners)])
    values = path + a * law.transform(path)
    assert round(np.angle(values[1:] / values[:-1]).sum() / (2 * math.pi)) == 0
    assert (root.real < 0) == (a < stable_rate(law)) or abs(root.real) < 1e-6


def test_many_measured_delays_say_what_their_law_says() -> None:
    measured = Histogram.of(np.random.default_rng(0).gamma(4, 0.25, 20_000).tolist())
    assert stable_rate(measured) * measured.mean == pytest.approx(stable_rate(Erlang(4, 1.0)), rel=0.03)
    assert leading_root(measured, 1.0).real == pytest.approx(leading_root(Erlang(4, 1.0), 1.0).real, rel=0.05)


@pytest.mark.parametrize("delay", [0.2, 0.6, 1.0, 1.3, 1.55])
def test_the_stationary_variance_of_a_fixed_delay(delay: float) -> None:
    assert stationary_variance(fixed(delay), 1.0) == pytest.approx(
        (1 + math.sin(delay)) / (2 * math.cos(delay)), rel=1e-5
    )


def test_the_stationary_variance_of_an_exponential_delay_is_that_of_two_linear_equations() -> None:
    # dx = -a y dt + dW, dy = (x - y)/T dt: E[x^2] solves its Lyapunov equation, (1 + a T)/(2 a)
    assert stationary_variance(Erlang(1, 0.5), 2.0) == pytest.approx((1 + 2.0 * 0.5) / (2 * 2.0), rel=1e-5)


def test_the_stationary_variance_of_a_measured_law_is_the_integral() -> None:
    law = Histogram((0.1, 0.5, 0.9), (1, 2, 1))
    integral, _ = quad(lambda w: 1 / abs(left(law, 1.0, 1j * w)) ** 2, 0, 400, limit=2000)
    assert stationary_variance(law, 1.0) == pytest.approx((integral + 1 / 400) / math.pi, rel=1e-4)
    assert stationary_variance(fixed(1.0), 2.0) == math.inf
