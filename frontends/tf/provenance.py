"""Where an op comes from: the user's line, and the scope that made it."""

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from baechi.frontends.lines import Lines

__all__ = ["LINES", "source_of"]

LINES = Lines(tf, keras, generated="__autograph_generated_file")
"""The user's lines in a capture."""


def source_of(frames: Iterable[Any]) -> str:
    """``file:line`` of the first frame that is the user's, from the innermost outwards, or nothing."""
    for frame in frames:
        if name := LINES.name(frame.filename):
            return f"{name}:{frame.lineno}"
    return ""
