"""Files that are written whole or not at all."""

import os
from pathlib import Path

from baechi.errors import BaechiError

__all__ = ["write_atomic"]


def write_atomic(path: str | Path, text: str) -> None:
    """Write a text file so that a reader sees the old content or the new, never a part of it.

    The text goes to a temporary file in the same directory, which then takes the name. What is no
    regular file, such as ``/dev/stdout``, is written to directly.

    Raises:
        BaechiError: B404 when the file cannot be written (no such directory, no permission, a full
            disk); the old content stays.
    """
    target = Path(path)
    try:
        target = target.resolve()
        if target.exists() and not target.is_file():
            target.write_text(text, encoding="utf-8")
        else:
            _replace(target, text)
    except OSError as error:
        raise BaechiError(
            "B404",
            f"cannot write {path}: {error.strerror or error}",
            help="nothing was changed; write to another place",
        ) from None


def _replace(target: Path, text: str) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
