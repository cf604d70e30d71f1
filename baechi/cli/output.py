"""Data on stdout, talk on stderr, progress only where somebody is watching."""

import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from baechi.errors import BaechiError
from baechi.units import format_seconds, to_seconds

if TYPE_CHECKING:
    from baechi.placers import Progress

__all__ = ["SearchLine", "check_folder", "emit", "emit_json", "hush_libraries", "note_load", "progress", "say"]

_PATIENCE_SECONDS = 1.0
_ERASE_LINE = "\r\x1b[K"


def emit(text: str) -> None:
    """Write data to stdout.

    Raises:
        BaechiError: B404 when it cannot be written, as on a full disk.
        BrokenPipeError: when nobody reads it any more.
    """
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BaechiError("B404", f"cannot write to standard output: {error.strerror or error}") from None


def emit_json(data: Mapping[str, Any]) -> None:
    """Write an object to stdout as JSON; errors as `emit`."""
    emit(json.dumps(data, indent=1, allow_nan=False))


def check_folder(path: str | None) -> None:
    """Refuse early to write a file later where it cannot be.

    Raises:
        BaechiError: B404 when its directory is not there or may not be written.
    """
    if path is None:
        return
    folder = Path(path).resolve().parent
    if not folder.is_dir():
        raise BaechiError("B404", f"cannot write {path}: there is no directory {folder}", help="make it first")
    if not os.access(folder, os.W_OK):
        raise BaechiError("B404", f"cannot write {path}: {folder} is read-only", help="write to another place")


def say(text: str) -> None:
    """Tell the person something; it is no data."""
    print(text, file=sys.stderr)


def note_load() -> None:
    """Say when others use the processor, for then steps take longer than they need."""
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 2 * (os.cpu_count() or 1):
        say("note: other programs use this machine's processor too, so steps take longer than they need")


def hush_libraries() -> None:
    """From now on only Python talks on stderr: what libraries write past it, to the file itself, goes nowhere."""
    sys.stderr.flush()
    kept = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123 - /dev/null is no path of ours
        os.dup2(nowhere.fileno(), 2)
    sys.stderr = kept


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Say what takes so long, on a terminal and when it takes longer than a second."""
    with SearchLine(what):
        yield


class SearchLine:
    """One line that says what takes so long and how far it is, on a terminal and past the first second.

    Args:
        what: is going on.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._state = ""
        self._watched = sys.stderr.isatty()
        self._shown = threading.Event()
        self._timer = threading.Timer(_PATIENCE_SECONDS, self._appear)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        if self._watched:
            self._timer.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._watched:
            return
        self._timer.cancel()
        self._timer.join()
        if self._shown.is_set():
            sys.stderr.write(_ERASE_LINE)
            sys.stderr.flush()

    def show(self, now: "Progress") -> None:
        """Say what a search has: the best so far, the bound, the gap."""
        if now.ticks is None or now.gap is None:
            return
        best, bound = format_seconds(to_seconds(now.ticks)), format_seconds(to_seconds(now.bound))
        self._state = f": best {best}, bound {bound}, gap {now.gap:.1%}, {now.seconds:.0f} s; Ctrl-C takes the best"
        if self._shown.is_set():
            self._write()

    def _appear(self) -> None:
        self._shown.set()
        self._write()

    def _write(self) -> None:
        sys.stderr.write(f"{_ERASE_LINE}{self._what}{self._state} …")
        sys.stderr.flush()
