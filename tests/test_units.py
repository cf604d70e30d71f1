"""Bytes, seconds and ticks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baechi.errors import BaechiError
from baechi.units import format_bytes, format_count, format_seconds, parse_bytes, to_seconds, to_ticks


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("8GiB", 8 * 1024**3),
        ("8 gib", 8 * 1024**3),
        ("500MB", 500_000_000),
        ("1.5KiB", 1536),
        ("1e3", 1000),
        ("2.5e-1 KB", 250),
        ("4096", 4096),
        ("2TiB", 2 * 1024**4),
        ("7B", 7),
    ],
)
def test_sizes(text: str, nbytes: int) -> None:
    assert parse_bytes(text) == nbytes


@pytest.mark.parametrize("text", ["", "GiB", "8 GiBs", "-1", "1,5GB", "nan", "inf", "8G iB", "0x10"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(BaechiError) as caught:
        parse_bytes(text)
    assert caught.value.code == "B301"


@given(st.integers(0, 2**50))
def test_three_digits_of_a_size_survive(nbytes: int) -> None:
    assert parse_bytes(format_bytes(nbytes)) == pytest.approx(nbytes, rel=0.005)


@given(st.floats(1e-9, 1e5))
def test_three_digits_of_a_time_survive(seconds: float) -> None:
    number, unit = format_seconds(seconds).split()
    assert float(number) * {"s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}[unit] == pytest.approx(seconds, rel=0.006)


@given(st.integers(0, 10**18))
def test_ticks_survive_seconds(ticks: int) -> None:
    assert to_ticks(to_seconds(ticks)) == pytest.approx(ticks, rel=1e-15)


@pytest.mark.parametrize(("seconds", "ticks"), [(0, 0), (1, 10**12), (1e-12, 1), (4e-13, 0), (1e6, 10**18)])
def test_a_tick_is_a_picosecond(seconds: float, ticks: int) -> None:
    assert to_ticks(seconds) == ticks


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 1e7])
def test_what_is_no_time(seconds: float) -> None:
    with pytest.raises(BaechiError) as caught:
        to_ticks(seconds)
    assert caught.value.code == "B302"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (999, "999"), (1000, "1.00 k"), (25.6e9, "25.6 G"), (3e18, "3000 P")]
)
def test_counts(count: float, text: str) -> None:
    assert format_count(count) == text
