"""Whether gradients of a cut step flow as the captured one's do.

A captured graph has no sign of `detach`, `no_grad` or a backward of one's own: its backward ops are what is left of them.
The forward ops alone, differentiated anew, must give the same ones.
"""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from baechi.errors import BaechiError
from baechi.frontends.pytorch import TorchProgram, capture
from baechi.replicas.ravnest.cut import cut_step
from baechi.replicas.ravnest.stage import Stage

__all__ = ["check_flow"]

_HERE = "here"
_MOVES = ("reshape", "expand", "t", "transpose", "permute", "alias", "clone", "_unsafe_view", "unsqueeze", "squeeze")


class _Whole(nn.Module):
    """A step of one stage, from its inputs and target to the loss."""

    def __init__(self, stage: Stage, targets: int) -> None:
        super().__init__()
        self.module, self._loss, self._targets = stage.module, stage.loss, targets

    def forward(self, *given: Tensor) -> Tensor:
        assert self._loss is not None  # it is the last stage
        first = len(given) - self._targets
        return self._loss(*self.module(*given[:first]), given[first:])


def check_flow(program: TorchProgram, targets: int = 1) -> None:
    """Refuse a step whose gradients are not those of its forward ops; arguments as `cut_step`.

    Raises:
        BaechiError: B859.
    """
    stage = cut_step(program, {op.name: _HERE for op in program.graph.ops}, [_HERE], targets).stage(0, _fakes(program))
    read = [None if op is None else program.values[op].meta["val"] for op in program.inputs]
    count = sum(value is not None for value in read[len(read) - targets :]) if targets else 0
    given = [torch.zeros(value.shape, dtype=value.dtype) for value in read if value is not None]
    again = capture(_Whole(stage, count), given, loss="output", optimizer="sgd")
    lost = Counter(_backward(again)) - Counter(_backward(program))
    if lost or Counter(_backward(program)) - Counter(_backward(again)):
        what = "the step stops gradients, or has a backward of its own, so it is not cut into stages"
        raise BaechiError("B859", what, help="leave detach, no_grad and autograd.Function out of what is trained")


def _fakes(program: TorchProgram) -> dict[str, Tensor]:
    nodes = {name: program.values[op] for name, op in {**program.parameters, **program.buffers}.items()}
    values: dict[str, Any] = {name: node.meta["val"] for name, node in nodes.items()}
    return {n: torch.empty_strided(v.shape, v.stride(), dtype=v.dtype, device="meta") for n, v in values.items()}


def _backward(program: TorchProgram) -> list[str]:
    kinds = [op.kind.removeprefix("aten.") for op in program.graph.ops if op.phase == "backward"]
    return [kind for kind in kinds if kind not in _MOVES]
