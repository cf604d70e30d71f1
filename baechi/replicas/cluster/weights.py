"""The weights that a worker has, whatever runs them: read as arrays for others, and changed by what they taught."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from baechi.errors import BaechiError
from baechi.replicas.peer import Arrays

__all__ = ["Weights", "weights_of"]


class Weights:
    """Tensors that are trained here.

    Args:
        tensors: by name; they are changed in place.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.names = tuple(tensors)
        self._tensors = tuple(t.detach() for t in tensors.values())

    def read(self) -> Arrays:
        """Copies in the host's memory; what numpy has no type for comes as float32."""
        return tuple(np.array(_host(t).numpy()) for t in self._tensors)

    @torch.no_grad()
    def write(self, arrays: Sequence[np.ndarray]) -> None:
        """Overwrite them."""
        for tensor, array in zip(self._tensors, arrays, strict=True):
            tensor.copy_(torch.from_numpy(array if array.flags.writeable else array.copy()))


def weights_of(model: Any, *, buffers: bool = False) -> Weights:
    """The weights of a module, placed or not, of a placed step, or of a worker's share of one.

    Args:
        buffers: whether floating-point buffers, such as the running statistics of batch norm, are mixed too;
            else each replica keeps its own.

    Raises:
        BaechiError: B802 when it has none.
    """
    from baechi.backends.pytorch.placed import PlacedStep
    from baechi.backends.pytorch.workers.training import Training

    if isinstance(model, Training):
        named, others = model.worker.parameters, model.worker.buffers
    elif isinstance(model, PlacedStep):
        named, others = model.executor.parameters, model.executor.buffers
    elif isinstance(model, torch.nn.Module):
        named, others = dict(model.named_parameters()), dict(model.named_buffers())
    else:
        what = f"a {type(model).__name__} has no weights to mix"
        raise BaechiError("B802", what, help="join() takes a module, plan.apply(model) or plan.worker(build)")
    if buffers:
        named = {**named, **{name: b for name, b in others.items() if b.is_floating_point()}}
    if not named and not isinstance(model, Training):
        raise BaechiError("B802", "the model has no parameters", help="there is nothing that replicas could share")
    return Weights(named)


def _host(tensor: torch.Tensor) -> torch.Tensor:
    narrow = tensor.dtype in (torch.bfloat16, torch.float16)
    return tensor.to("cpu", torch.float32 if narrow else tensor.dtype)
