"""What a caller gives, against what was captured."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from baechi.errors import BaechiError
from baechi.frontends.pytorch.program import TorchProgram

__all__ = ["Like", "captured", "given_input", "given_weight"]


class Like(Protocol):
    """Shape and type of what was captured: of a fake tensor, or as a worker is told."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""

    @property
    def dtype(self) -> torch.dtype:
        """Its element type."""


def captured(program: TorchProgram, op: str) -> Tensor:
    """The fake tensor of an op whose value is there before the step."""
    value: Tensor = program.values[program.graph.op[op].outputs[0].name].meta["val"]
    return value


def given_input(op: str, value: Any, like: Like) -> Tensor:
    """An input, without its history.

    Raises:
        BaechiError: B608 when it is not like the captured one.
    """
    if not isinstance(value, Tensor):
        raise BaechiError("B608", f"input '{op}' is no tensor but {type(value).__name__}")
    if value.shape != like.shape or value.dtype != like.dtype:
        raise BaechiError(
            "B608",
            f"input '{op}' is {value.dtype} of shape {list(value.shape)}, "
            f"the captured one {like.dtype} of {list(like.shape)}",
            help="a plan holds for one shape: capture and place the step for this one",
        )
    return value.detach()


def given_weight(name: str, given: Mapping[str, Tensor], like: Like) -> Tensor:
    """A parameter or buffer, without its history.

    Raises:
        BaechiError: B607 when it is missing or has another shape.
    """
    if name not in given:
        raise BaechiError("B607", f"'{name}' is missing")
    if given[name].shape != like.shape:
        raise BaechiError("B607", f"'{name}' has shape {list(given[name].shape)}, the captured one {list(like.shape)}")
    return given[name].detach()
