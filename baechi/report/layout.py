"""Text of at most 80 columns: tables, bars, fields."""

import re
import textwrap
from collections.abc import Iterable, Sequence

__all__ = ["WIDTH", "bar", "clip", "fields", "percent", "table", "tail", "wrap"]

WIDTH = 80
_LABEL = 12
_UNIT = re.compile(r"(\d) ([A-Za-z])")


def percent(share: float) -> str:
    """A share as a percentage, with a decimal below 10.

    Example:
        >>> percent(0.031), percent(0.84), percent(12.5)
        ('3.1%', '84%', '1250%')
    """
    value = 100 * share
    return f"{value:.1f}%" if abs(value) < 9.95 else f"{value:.0f}%"


def bar(share: float, width: int = 20) -> str:
    """A share as a bar; what is over the end shows as ``!``.

    Example:
        >>> bar(0.5, 8), bar(1.2, 8)
        ('[####----]', '[#######!]')
    """
    if share > 1:
        return "[" + "#" * (width - 1) + "!]"
    full = min(width, round(share * width))
    return "[" + "#" * full + "-" * (width - full) + "]"


def clip(text: str, width: int) -> str:
    """A text cut in the middle when it is too long: both ends of a module path say something.

    Example:
        >>> clip("encoder.layers.11.attention", 16)
        'encode...tention'
    """
    if len(text) <= width:
        return text
    head = (width - 3) // 2
    return f"{text[:head]}...{text[len(text) - (width - 3 - head) :]}"


def tail(text: str, width: int) -> str:
    """The end of a text: of a path, the file and the line.

    Example:
        >>> tail("/home/me/net/model.py:32", 14)
        '...model.py:32'
    """
    return text if len(text) <= width else "..." + text[len(text) - width + 3 :]


def wrap(text: str, width: int = WIDTH, indent: str = "") -> list[str]:
    """Lines of at most `width` columns in which no number is parted from its unit.

    Example:
        >>> wrap("it has 10 KiB in all", 11)
        ['it has', '10 KiB in', 'all']
    """
    glued = _UNIT.sub("\\1\0\\2", text)
    lines = textwrap.wrap(glued, width, initial_indent=indent, subsequent_indent=indent)
    return [line.replace("\0", " ") for line in lines]


def fields(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Lines of a label and a text, which goes on below itself when it is long.

    Example:
        >>> fields([("step", "1.20 s")])
        ['step        1.20 s']
    """
    lines: list[str] = []
    for label, text in pairs:
        wrapped = wrap(text, WIDTH - _LABEL) or [""]
        lines += [f"{(label if i == 0 else ''):<{_LABEL}}{part}".rstrip() for i, part in enumerate(wrapped)]
    return lines


def table(rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """Rows in columns, the first row the header; a column is aligned by ``<`` or ``>``.

    Example:
        >>> table([("a", "n"), ("x", "10")], "<>")
        ['a   n', 'x  10']
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(align))]
    return ["  ".join(f"{c:{a}{w}}" for c, a, w in zip(row, align, widths, strict=True)).rstrip() for row in rows]
