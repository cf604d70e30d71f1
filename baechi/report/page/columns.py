"""Bars and curves as the compact columns that the page's script reads: it draws of them what the screen can show."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baechi.report.page.spans import Bars, Chart, Curve

__all__ = ["Words", "chart_columns"]

_TEXTS = ("name", "kind", "where", "about", "source")


class Words:
    """Texts by number, each kept once."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}

    def numbers(self, texts: Sequence[str]) -> NDArray[np.uint32]:
        """The number of each, known already or the next one."""
        known = self._number
        return np.array([known.setdefault(text, len(known)) for text in texts], np.uint32)

    def texts(self) -> list[str]:
        """All of them, by number."""
        return list(self._number)


def chart_columns(chart: Chart, words: Words, factor: float, scales: Mapping[str, float]) -> dict[str, Any]:
    """A chart as plain data; arrays are base64 of little-endian numbers.

    Args:
        chart: of a timeline.
        words: takes the texts.
        factor: from seconds to the unit of the time axis.
        scales: bytes of a unit of the memory axis, by device; others have no curve.
    """
    return {
        "ops": _bars(chart.ops, words, factor),
        "transfers": _bars(chart.transfers, words, factor),
        "memory": {name: _curve(chart.memory[name], factor, scale) for name, scale in scales.items()},
    }


def _bars(bars: Bars, words: Words, factor: float) -> dict[str, Any]:
    """Bars lane by lane, from the top, and in each by time; ``lanes`` has the middle, the height and the number of its bars."""
    order = np.lexsort((bars.start, -bars.y))
    y = bars.y[order]
    first = np.flatnonzero(np.diff(y, prepend=np.inf))
    counts = np.diff(first, append=len(y))
    lanes = zip(y[first].tolist(), bars.height[order][first].tolist(), counts.tolist(), strict=True)
    texts = {text: words.numbers(getattr(bars, text))[order] for text in _TEXTS}
    return {
        "lanes": [list(lane) for lane in lanes],
        "left": _packed(bars.start[order] * factor, "<f8"),
        "right": _packed(bars.end[order] * factor, "<f8"),
        "tone": _packed(bars.tone[order], "u1"),
        "critical": _packed(bars.critical[order], "u1"),
        **{text: _packed(numbers, "<u4") for text, numbers in texts.items()},
    }


def _curve(curve: Curve, factor: float, scale: float) -> dict[str, Any]:
    return {"x": _packed(curve.seconds * factor, "<f8"), "y": _packed(curve.nbytes / scale, "<f8")}


def _packed(values: NDArray[Any], kind: str) -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode()
