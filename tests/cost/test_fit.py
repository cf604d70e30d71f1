"""Fits against scipy's, and against lines that are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from baechi.cost.fit import fit_rate
from baechi.errors import BaechiError


@given(st.floats(1e-6, 1e-2), st.floats(1e6, 1e12))
def test_a_line_is_found(least: float, rate: float) -> None:
    amounts = [0.0, rate * least / 2, rate * least, rate * least * 9]
    fit = fit_rate([(a, least + a / rate) for a in amounts])
    assert (fit.least_seconds, fit.rate) == (pytest.approx(least), pytest.approx(rate))
    assert fit.residual < 1e-9
    assert fit.seconds(rate) == pytest.approx(least + 1)


@pytest.mark.parametrize("seed", range(5))
def test_errors_are_those_of_weighted_least_squares(seed: int) -> None:
    random = np.random.default_rng(seed)
    amounts = np.array([1, 10, 100, 1e3, 1e4, 1e5, 1e6])
    seconds = (1e-4 + amounts / 1e8) * random.uniform(0.9, 1.1, len(amounts))
    fit = fit_rate(list(zip(amounts, seconds, strict=True)))
    values, covariance = curve_fit(lambda x, a, b: a + b * x, amounts, seconds, p0=(1e-4, 1e-8), sigma=seconds)
    assert fit.least_seconds == pytest.approx(values[0], rel=1e-4)
    assert 1 / fit.rate == pytest.approx(values[1], rel=1e-4)
    assert fit.least_error == pytest.approx(covariance[0, 0] ** 0.5, rel=1e-3)
    assert fit.rate_error == pytest.approx(covariance[1, 1] ** 0.5 / values[1], rel=1e-3)


def test_no_time_is_below_zero() -> None:
    fit = fit_rate([(1, 0.5), (2, 2.0), (4, 4.5)])
    assert (fit.least_seconds, fit.least_error) == (0.0, 0.0)
    assert fit.rate > 0


@pytest.mark.parametrize(
    "points", [[(1, 1.0), (2, 2.0)], [(1, 1.0)] * 3, [(1, 0.0), (2, 1.0), (3, 2.0)], [(1, 3.0), (2, 2.0), (3, 1.0)]]
)
def test_points_that_tell_no_rate(points: list[tuple[float, float]]) -> None:
    with pytest.raises(BaechiError, match="B311"):
        fit_rate(points)
