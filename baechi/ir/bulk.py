"""Making millions of small objects at once."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["uncollected"]

_MANY = 100_000


@contextmanager
def uncollected() -> Iterator[None]:
    """Leave the cyclic garbage collector out of a block that makes many objects and no cycles.

    It would look through all that is alive again and again, because so much is new. Where very much
    is new in the end, it counts as old at once: it is looked through when everything is.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            if gc.get_count()[0] > _MANY and gc.get_freeze_count() == 0:  # what others froze stays frozen
                gc.freeze()
                gc.unfreeze()
            gc.enable()
