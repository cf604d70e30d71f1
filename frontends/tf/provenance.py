"""Where an op comes from: the user's line, and the scope that made it."""

import sysconfig
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import baechi

__all__ = ["shown", "source_of", "user_line"]

_HIDDEN = (
    sysconfig.get_paths()["stdlib"],
    str(Path(__file__).resolve().parent),
    str(Path(baechi.__file__).resolve().parent / "backends"),
)
_PACKAGES = ("tensorflow/", "keras/")
_shown: dict[str, str] = {}


def shown(filename: str) -> str:
    """A file's name as it is printed; empty for a file that is not the user's."""
    found = _shown.get(filename)
    if found is None:
        found = _shown[filename] = _show(filename)
    return found


def _show(filename: str) -> str:
    if filename.startswith("<"):
        return filename if filename.startswith(("<ipython", "<stdin")) else ""
    path = str(Path(filename).resolve())
    package = path.rpartition("-packages/")[2] if "-packages/" in path else ""
    if package:
        return "" if package.startswith(_PACKAGES) else package
    if path.startswith(_HIDDEN) or "__autograph_generated_file" in path:
        return ""
    return path.removeprefix(str(Path.cwd()) + "/")


def user_line(traceback: TracebackType | None) -> str:
    """``file:line`` of the innermost frame that is the user's, or nothing."""
    line = ""
    while traceback is not None:
        name = shown(traceback.tb_frame.f_code.co_filename)
        if name:
            line = f"{name}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return line


def source_of(frames: Iterable[Any]) -> str:
    """``file:line`` of the first frame that is the user's, from the innermost outwards, or nothing."""
    for frame in frames:
        name = shown(frame.filename)
        if name:
            return f"{name}:{frame.lineno}"
    return ""
