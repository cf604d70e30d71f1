"""The C library's heap: speed where memory is plenty, no holes where it is not."""

import ctypes

__all__ = ["map_large_blocks"]

_M_MMAP_THRESHOLD, _M_MMAP_MAX = -3, -4
_LARGE_BYTES = 1 << 20


def map_large_blocks() -> bool:
    """From now on give each block of 1 MiB or more pages of its own, which go back when it is freed.

    In one heap that never shrinks, blocks are reused without a page fault, but holes between them
    that fit nothing took up to as much again as the tensors when tried on Inception-V3. The faults
    cost a fifth of its step there, less with large pages (``GLIBC_TUNABLES``). Whether the C library
    can do it.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(set_option(_M_MMAP_MAX, 1 << 16)) and bool(set_option(_M_MMAP_THRESHOLD, _LARGE_BYTES))
