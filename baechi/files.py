"""Files that are written whole or not at all."""

import os
from pathlib import Path

from baechi.errors import BaechiError

__all__ = ["write_atomic"]


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part of it; text is UTF-8.

    The content goes to a temporary file in the same directory, which then takes the name. What is no
    regular file, such as ``/dev/stdout``, is written to directly.

    Raises:
        BaechiError: B404 when the file cannot be written (no such directory, no permission, a full
            disk); the old content stays.
    """
    target, data = Path(path), content.encode() if isinstance(content, str) else content
    try:
        target = target.resolve()
        if target.exists() and not target.is_file():
            target.write_bytes(data)
        else:
            _replace(target, data)
    except OSError as error:
        raise BaechiError(
            "B404",
            f"cannot write {path}: {error.strerror or error}",
            help="nothing was changed; write to another place",
        ) from None


def _replace(target: Path, data: bytes) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
