"""A step draws from one stream of random numbers; code that starts that stream anew cannot be placed."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

from baechi.errors import BaechiError
from baechi.frontends.pytorch.provenance import calling_line

__all__ = ["unseeded"]


@contextlib.contextmanager
def unseeded() -> Iterator[None]:
    """Inside, code that sets the seed of torch's random numbers is refused.

    Saving and restoring their state, as activation checkpointing does, is allowed: what is drawn
    again then is not part of the traced step.

    Raises:
        BaechiError: B705.
    """
    with contextlib.ExitStack() as stack:
        for owner in (torch, torch.random):
            for name in ("manual_seed", "seed"):
                stack.enter_context(mock.patch.object(owner, name, _refuse))
        yield


def _refuse(*_: Any) -> Any:
    line = calling_line(sys._getframe(1)) or "the module"
    raise BaechiError(
        "B705",
        f"{line}: the program seeds the random numbers inside the step, which the placed step does not repeat",
        help="seed before the step: random ops then draw in the order of the program, wherever they run",
    )
