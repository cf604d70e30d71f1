"""Sharded checkpoints: each process writes and reads only what it holds.

A checkpoint is a directory that ``torch.distributed.checkpoint`` reads, with one more file for
what is no tensor. It gets its name when all of it is written. Its ``.metadata`` is a pickle, as
torch makes it: load none that you do not trust.
"""

import io
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save as write_state

from baechi.backends.pytorch.contents import FORMAT, Contents, contents, quiet, read
from baechi.backends.pytorch.steps import PLAIN, fresh, publish
from baechi.errors import BaechiError

__all__ = ["Shard", "load", "save"]


@dataclass(frozen=True, eq=False)
class Shard:
    """What one process holds of a training.

    Args:
        parameters: by name.
        buffers: by name.
        optimizer: by parameter name, the state of its optimiser.
        extra: small plain data, the same on all processes, such as the step count.
        rng: the generator's state; when saving, from the one process whose state counts.
    """

    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    optimizer: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    rng: Tensor | None = None


def save(
    directory: str | Path,
    shard: Shard,
    *,
    tied: Mapping[str, str],
    keys: Sequence[str] = (),
    group: "dist.ProcessGroup | None" = None,
) -> None:
    """Write a checkpoint; every process of the group calls this with its own shard.

    The directory, which all processes must see, appears when everything is in it. One of that
    name from before is replaced.

    Args:
        directory: the checkpoint's own, such as ``step_directory(root, step)``.
        shard: what this process holds.
        tied: first name by other name, of the whole model.
        keys: the plain model's ``state_dict`` keys in their order, for `export`.
        group: the processes; the default group when torch.distributed is initialised.

    Raises:
        BaechiError: B614 on every process when one cannot write; an older checkpoint stays.
    """
    target = Path(directory)
    partial = target.with_name(f".{target.name}.partial")
    _agree(group, lambda: fresh(partial) if _is_first(group) else None)
    shares = _agree(group, lambda: _share(shard, partial))
    plain = {"format": FORMAT, "tied": dict(tied), "keys": list(keys), "extra": dict(shard.extra)}
    plain |= {part: [name for share in shares for name in share[part]] for part in ("parameters", "buffers")}
    for part in ("state", "strides"):
        plain[part] = {name: values for share in shares for name, values in share[part].items()}
    _agree(group, lambda: _write_plain(partial / PLAIN, plain) if _is_first(group) else None)
    try:
        with quiet():
            writer = FileSystemWriter(partial)
            write_state(_tensors(shard), storage_writer=writer, process_group=group, no_dist=not _is_distributed())
    except CheckpointException as error:
        raise _not_saved(str(error)) from error
    _agree(group, lambda: publish(partial, target) if _is_first(group) else None)


def load(
    directory: str | Path,
    parameters: Mapping[str, Sequence[int]],
    buffers: Mapping[str, Sequence[int]],
    *,
    optimizer: bool = True,
) -> Shard:
    """Read the named tensors of a checkpoint, however many processes wrote it; no other process takes part.

    Args:
        directory: the checkpoint's own.
        parameters: shape by name, of the parameters wanted here.
        buffers: shape by name, of the buffers wanted here.
        optimizer: whether to read the state of the parameters' optimisers too.

    Raises:
        BaechiError: B611 when no checkpoint is there, B612 when it is of another model, B613 when a
            part of it is missing or damaged.
    """
    found = contents(directory)
    for name, shape in (*parameters.items(), *buffers.items()):
        _check(directory, found, name, tuple(shape))
    wanted = [f"model.{name}" for name in (*parameters, *buffers)]
    state = [key for key in found.tensors if optimizer and key.startswith("optim.") and _field(key)[0] in parameters]
    rng = [key for key in ("rng",) if key in found.tensors]
    tensors = read(directory, found, [*wanted, *state, *rng])
    states = {name: dict(found.state.get(name, {})) for name in parameters if optimizer}
    for key in state:
        name, part = _field(key)
        states[name][part] = tensors[key]
    return Shard(
        {name: tensors[f"model.{name}"] for name in parameters},
        {name: tensors[f"model.{name}"] for name in buffers},
        {name: values for name, values in states.items() if values},
        found.extra,
        tensors.get("rng"),
    )


def _tensors(shard: Shard) -> dict[str, Tensor]:
    tensors = {f"model.{name}": t.detach() for name, t in (*shard.parameters.items(), *shard.buffers.items())}
    for name, values in shard.optimizer.items():
        tensors |= {f"optim.{name}.{key}": v.detach() for key, v in values.items() if isinstance(v, Tensor)}
    return tensors if shard.rng is None else {**tensors, "rng": shard.rng}


def _is_permuted(tensor: Tensor) -> bool:
    """Dense, but with its dimensions in another order, such as channels last."""
    return not tensor.is_contiguous() and torch.empty_like(tensor, device="meta").stride() == tensor.stride()


def _field(key: str) -> tuple[str, str]:
    """Parameter name and key of the optimiser's state; a state's keys have no dots, names do."""
    name, _, part = key.removeprefix("optim.").rpartition(".")
    return name, part


def _share(shard: Shard, partial: Path) -> dict[str, Any]:
    if not partial.is_dir():
        raise OSError(f"it does not see {partial.parent}, which all processes must share")
    states = {n: {k: v for k, v in s.items() if not isinstance(v, Tensor)} for n, s in shard.optimizer.items()}
    return {
        "parameters": list(shard.parameters),
        "buffers": list(shard.buffers),
        "state": {n: s for n, s in states.items() if s},
        "strides": {key: t.stride() for key, t in _tensors(shard).items() if _is_permuted(t)},
    }


def _write_plain(path: Path, plain: Mapping[str, Any]) -> None:
    """Write what is no tensor, once it is sure that it can be read again."""
    memory = io.BytesIO()
    try:
        torch.save(plain, memory)
        torch.load(io.BytesIO(memory.getvalue()), weights_only=True)
    except (pickle.PickleError, AttributeError, TypeError, RuntimeError) as error:
        raise OSError(f"what goes with the tensors is no plain data: {error}") from error
    with path.open("wb") as file:
        file.write(memory.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _is_first(group: "dist.ProcessGroup | None") -> bool:
    return not _is_distributed() or dist.get_rank(group) == 0


def _agree(group: "dist.ProcessGroup | None", act: Callable[[], Any]) -> list[Any]:
    """Act on every process; the results of all, or one error on all."""
    try:
        mine: tuple[Any, str] = act(), ""
    except OSError as error:
        mine = None, str(error)
    every = [mine]
    if _is_distributed():
        every *= dist.get_world_size(group)
        dist.all_gather_object(every, mine, group=group)
    for rank, (_, why) in enumerate(every):
        if why:
            raise _not_saved(f"process {rank}: {why}")
    return [result for result, _ in every]


def _not_saved(why: str) -> BaechiError:
    return BaechiError("B614", f"the checkpoint was not saved: {why}", help="older checkpoints are as they were")


def _check(directory: str | Path, found: Contents, name: str, shape: tuple[int, ...]) -> None:
    stored = found.tensors.get(f"model.{name}")
    if stored is None:
        raise BaechiError("B612", f"the checkpoint at {directory} is of another model: it has no '{name}'")
    if stored[0] != shape:
        raise BaechiError(
            "B612",
            f"the checkpoint at {directory} is of another model: "
            f"'{name}' has shape {list(stored[0])} there and {list(shape)} here",
        )
