"""What a checkpoint holds, and its tensors by key."""

import contextlib
import pickle
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as read_state

from baechi.backends.pytorch.steps import PLAIN
from baechi.errors import BaechiError

__all__ = ["FORMAT", "Contents", "contents", "quiet", "read"]

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Contents:
    """What a checkpoint holds, without its tensors.

    Args:
        parameters: shape by name, sorted.
        buffers: shape by name, sorted.
        tied: first name by other name.
        keys: the plain model's ``state_dict`` keys in their order; empty when not said.
        extra: the plain data given to `save`.
        state: by parameter name, what its optimiser's state has besides tensors.
        tensors: shape and type of every tensor by its key.
        strides: of the tensors that are not contiguous.
    """

    parameters: Mapping[str, tuple[int, ...]]
    buffers: Mapping[str, tuple[int, ...]]
    tied: Mapping[str, str]
    keys: tuple[str, ...]
    extra: Mapping[str, Any]
    state: Mapping[str, Mapping[str, Any]]
    tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
    strides: Mapping[str, tuple[int, ...]]

    def empty(self, key: str) -> Tensor:
        """Memory for a tensor."""
        shape, dtype = self.tensors[key]
        made = torch.empty(shape, dtype=dtype, device="cpu")
        return made if key not in self.strides else made.as_strided(shape, self.strides[key])


def contents(directory: str | Path) -> Contents:
    """What a checkpoint holds; reads no tensor.

    Raises:
        BaechiError: B611 when no checkpoint is there, B613 when a part of it is missing or damaged.
    """
    path = Path(directory)
    if not path.is_dir():
        raise BaechiError("B611", f"no checkpoint at {path}", help="give the directory of one step, step-…")
    try:
        plain = torch.load(path / PLAIN, weights_only=True)
        metadata = FileSystemReader(path).read_metadata()
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise _damaged(path, error) from error
    if plain["format"] != FORMAT:
        raise BaechiError("B611", f"{path} has format {plain['format']}, this baechi reads {FORMAT}")
    tensors = {
        key: (tuple(m.size), m.properties.dtype)
        for key, m in sorted(metadata.state_dict_metadata.items())
        if isinstance(m, TensorStorageMetadata)
    }
    parameters, buffers = (
        {name: tensors[f"model.{name}"][0] for name in sorted(plain[part])} for part in ("parameters", "buffers")
    )
    rest = {part: plain[part] for part in ("tied", "extra", "state", "strides")}
    return Contents(parameters, buffers, keys=tuple(plain["keys"]), tensors=tensors, **rest)


def read(directory: str | Path, found: Contents, keys: Sequence[str]) -> dict[str, Tensor]:
    """Read tensors of a checkpoint by key.

    Raises:
        BaechiError: B613 when a part of it is missing or damaged.
    """
    into = {key: found.empty(key) for key in keys}
    if not into:
        return {}
    try:
        with quiet():
            read_state(dict(into), storage_reader=FileSystemReader(directory), no_dist=True)
    except CheckpointException as error:
        raise _damaged(Path(directory), error) from error
    return into


def _damaged(path: Path, error: BaseException) -> BaechiError:
    causes = list(error.failures.values()) if isinstance(error, CheckpointException) else [error]
    first = next((c[0] if isinstance(c, tuple) else c for c in causes), error)
    return BaechiError(
        "B613", f"the checkpoint at {path} is not whole: {first}", help="load an older one, or save it again"
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what torch says of a call in a single process, and of its own deprecated storages."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is (disabled|unavailable)", category=UserWarning)
        warnings.filterwarnings("ignore", message="TypedStorage is deprecated", category=UserWarning)
        yield
