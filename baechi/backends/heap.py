"""The C library's heap: speed where memory is plenty, no holes where it is not."""

import ctypes
import os
import site
import sys
from collections.abc import Mapping
from pathlib import Path

from baechi.backends.limits import ALLOWANCE_BYTES

__all__ = ["is_reusing", "map_large_blocks", "reusing_environment", "reusing_libraries"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_LARGE_BYTES = 1 << 20
_TIGHT_BYTES = 1 << 18
_ROOMY, _TIGHT = 0.6, 0.8
_LIBRARIES = ("libtbbmalloc.so.2", "libtbbmalloc_proxy.so.2")
_ROUNDED_UP = 9 / 8
"""How much more than it was asked for oneTBB's allocator takes for a large block, at most."""


def map_large_blocks(share: float = 1.0) -> bool:
    """From now on, unless memory is plenty, give each large block pages of its own, which go back when it is freed.

    Large is 1 MiB where there is some room for holes, and 256 KiB where there is not.

    In one heap that never shrinks, blocks are reused without a page fault, but holes between them
    that fit nothing took up to as much again as the tensors when tried on Inception-V3. The faults
    cost a fifth of its step there and a third of GNMT's, less with large pages (``GLIBC_TUNABLES``).
    What the heap has at its end and does not need goes back now and later, for no large block is put there any more.
    Blocks below 1 MiB left holes of up to a fifth of the tensors of a Transformer of batch 8, and
    next to none below 256 KiB, for steps about 6 % longer.

    Args:
        share: what the process is expected to need of the memory that it may take; up to 0.6 is plenty.

    Returns:
        Whether it is done: the C library can, and there is need.
    """
    if share <= _ROOMY or is_reusing():
        return False
    large = _LARGE_BYTES if share <= _TIGHT else _TIGHT_BYTES
    options = {_M_MMAP_MAX: 1 << 16, _M_MMAP_THRESHOLD: large, _M_TRIM_THRESHOLD: _LARGE_BYTES}
    try:
        library = ctypes.CDLL(None)
        done = all(library.mallopt(option, value) for option, value in options.items())
        library.malloc_trim(0)
    except (AttributeError, OSError):
        return False
    return done


def reusing_environment(
    need_bytes: int, cap_bytes: int, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What to add to the environment of a process that will be held to a cap, so that it reuses its large blocks.

    oneTBB's allocator (PyPI's ``tbb``) keeps freed blocks of every size and gives them back when the system
    refuses it more: no page faults as long as there is room, hardly a hole when there is not. It rounds sizes up.
    Where memory is plenty, the C library's heap is faster.

    Args:
        need_bytes: the peak of its tensors.
        cap_bytes: what they may take.
        environment: that it gets beside; that of this process by default. Its own ``LD_PRELOAD`` comes first.

    Returns:
        Nothing where the allocator is not installed, memory is plenty, or rounded sizes might not fit.
    """
    libraries = reusing_libraries()
    fits = need_bytes * _ROUNDED_UP <= cap_bytes + ALLOWANCE_BYTES / 2
    if not libraries or need_bytes <= _ROOMY * (cap_bytes - ALLOWANCE_BYTES) or not fits:
        return {}
    theirs = (os.environ if environment is None else environment).get("LD_PRELOAD", "")
    preloaded = [*([theirs] if theirs else []), *map(str, libraries)]
    return {"LD_PRELOAD": ":".join(preloaded), "TBB_MALLOC_SET_HUGE_SIZE_THRESHOLD": str(64 * 2**20)}


def is_reusing() -> bool:
    """Whether this process was started in a `reusing_environment`."""
    try:
        return hasattr(ctypes.CDLL(None), "__TBB_malloc_proxy")
    except OSError:
        return False


def reusing_libraries() -> tuple[Path, ...]:
    """oneTBB's allocator where it is installed, in the order in which its libraries are loaded; else none."""
    for root in (sys.prefix, site.getuserbase()):
        found = tuple(Path(root) / "lib" / name for name in _LIBRARIES)
        if all(path.is_file() for path in found):
            return found
    return ()
