"""Files that hold a stopped simulation: written whole or not at all, and read without running what they name."""

import hashlib
import io
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from baechi.errors import BaechiError

__all__ = ["read_state", "write_state"]

_MAGIC = b"baechi/replicas-state/1 "
_OURS = "baechi.replicas."
_KNOWN = {
    ("builtins", "frozenset"),
    ("builtins", "set"),
    ("collections", "Counter"),
    ("collections", "deque"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy.random._pcg64", "PCG64"),
    ("numpy.random._pickle", "__bit_generator_ctor"),
    ("numpy.random._pickle", "__generator_ctor"),
    ("numpy.random.bit_generator", "SeedSequence"),
    ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"),
    ("random", "Random"),
}


def write_state(path: str | Path, state: dict[str, Any]) -> None:
    """Write a state.

    Args:
        path: a file; it takes the place of an old one in one moment.
        state: anything that pickles.

    Raises:
        BaechiError: B404 when it cannot be written; the old file stays.
    """
    data = pickle.dumps(state, protocol=5)
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(_MAGIC + hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise BaechiError("B404", f"cannot write {path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def read_state(path: str | Path, trusted: Sequence[str] = ()) -> dict[str, Any]:
    """Read what `write_state` wrote.

    Args:
        path: the file.
        trusted: further modules whose classes it may hold.

    Raises:
        BaechiError: B844 when it is not there, none of ours, damaged, or names anything but this package's classes,
            numpy's arrays and generators, and plain containers.
    """
    try:
        head, _, data = Path(path).read_bytes().partition(b"\n")
    except OSError as error:
        raise BaechiError("B844", f"cannot read {path}: {error.strerror or error}") from None
    if head != _MAGIC + hashlib.sha256(data).hexdigest().encode():
        raise BaechiError("B844", f"{path} is no state of a simulation, or it is damaged")
    try:
        found: dict[str, Any] = _Reader(io.BytesIO(data), frozenset(trusted)).load()
    except (pickle.UnpicklingError, AttributeError, EOFError, ImportError, IndexError, TypeError, ValueError) as error:
        raise BaechiError("B844", f"cannot read {path}: {error}") from None
    return found


class _Reader(pickle.Unpickler):
    """Finds only what a state is made of."""

    def __init__(self, file: io.BytesIO, trusted: frozenset[str]) -> None:
        super().__init__(file)
        self._trusted = trusted

    def find_class(self, module: str, name: str) -> Any:
        ours = module.startswith(_OURS) and "." not in name
        if not ours and (module, name) not in _KNOWN and module not in self._trusted:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no simulation holds")
        found = super().find_class(module, name)
        if ours and not isinstance(found, type):
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no class")
        return found
