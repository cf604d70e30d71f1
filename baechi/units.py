"""Bytes, seconds and ticks as people write them, and the one place that converts them.

A *tick* is a picosecond. The compiled loops count time in whole ticks, so that sums do not depend
on their order and two equal plans have equal times.
"""

import math
import re

from baechi.errors import BaechiError

__all__ = [
    "TICKS_PER_SECOND",
    "format_bytes",
    "format_count",
    "format_seconds",
    "parse_bytes",
    "parse_seconds",
    "to_seconds",
    "to_ticks",
]

TICKS_PER_SECOND = 10**12
_LONGEST_SECONDS = 10**6  # eleven days; nine such times still fit into 63 bits of ticks

_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SECONDS = {"": 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_BYTES |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_bytes(text: str) -> int:
    """Read a size.

    Raises:
        BaechiError: B301 when `text` is no size.

    Example:
        >>> parse_bytes("8GiB"), parse_bytes("1.5 MB"), parse_bytes("4")
        (8589934592, 1500000, 4)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in _BYTES:
        raise BaechiError("B301", f"'{text}' is not a size", help="write 8GiB, 500MB or 4096")
    return round(float(match[1]) * _BYTES[match[2].upper()])


def parse_seconds(text: str) -> float:
    """Read a time; a bare number is seconds.

    Raises:
        ValueError: when `text` is none.

    Example:
        >>> parse_seconds("10s"), parse_seconds("250ms"), parse_seconds("2min")
        (10.0, 0.25, 120.0)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|)\s*", text)
    if match is None:
        raise ValueError(f"'{text}' is no time such as 10s, 250ms or 2min")
    return float(match[1]) * _SECONDS[match[2]]


def format_bytes(nbytes: float) -> str:
    """Write a size with three significant digits.

    Example:
        >>> format_bytes(8589934592), format_bytes(1536), format_bytes(12)
        ('8.00 GiB', '1.50 KiB', '12 B')
    """
    if abs(nbytes) < 1024:
        return f"{nbytes:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        nbytes /= 1024
        if abs(nbytes) < 1024 or unit == "TiB":
            break
    return f"{_digits(nbytes)} {unit}"


def format_seconds(seconds: float) -> str:
    """Write a duration with three significant digits.

    Example:
        >>> format_seconds(0.1831), format_seconds(2e-6), format_seconds(75)
        ('183 ms', '2.00 us', '75.0 s')
    """
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us"), (1e9, "ns")):
        if abs(seconds) * factor >= 1:
            return f"{_digits(seconds * factor)} {unit}"
    return "0 s" if seconds == 0 else f"{_digits(seconds * 1e9)} ns"


def format_count(count: float) -> str:
    """Write a large count with an SI suffix.

    Example:
        >>> format_count(5.7e9), format_count(12)
        ('5.70 G', '12')
    """
    if abs(count) < 1000:
        return f"{count:.0f}"
    for unit in ("k", "M", "G", "T", "P"):
        count /= 1000
        if abs(count) < 1000 or unit == "P":
            break
    return f"{_digits(count)} {unit}"


def _digits(value: float) -> str:
    return f"{value:.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"


def to_ticks(seconds: float) -> int:
    """Convert seconds to whole ticks.

    Raises:
        BaechiError: B302 when `seconds` is not a finite time of at least zero.

    Example:
        >>> to_ticks(2e-6)
        2000000
    """
    if not (math.isfinite(seconds) and 0 <= seconds <= _LONGEST_SECONDS):
        raise BaechiError(
            "B302",
            f"{seconds} is not a time",
            help=f"a cost is a finite number of seconds from 0 to {_LONGEST_SECONDS}",
        )
    return round(seconds * TICKS_PER_SECOND)


def to_seconds(ticks: int) -> float:
    """Convert ticks to seconds.

    Example:
        >>> to_seconds(2_000_000)
        2e-06
    """
    return int(ticks) / TICKS_PER_SECOND
