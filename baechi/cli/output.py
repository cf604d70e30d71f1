"""Data on stdout, talk on stderr, progress only where somebody is watching."""

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from baechi.errors import BaechiError

__all__ = ["emit", "emit_json", "progress", "say"]

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


def say(text: str) -> None:
    """Tell the person something; it is no data."""
    print(text, file=sys.stderr)


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Say what takes so long, on a terminal and when it takes longer than a second."""
    if not sys.stderr.isatty():
        yield
        return
    shown = threading.Event()

    def show() -> None:
        shown.set()
        sys.stderr.write(f"{_ERASE_LINE}{what} …")
        sys.stderr.flush()

    timer = threading.Timer(_PATIENCE_SECONDS, show)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if shown.is_set():
            sys.stderr.write(_ERASE_LINE)
            sys.stderr.flush()
