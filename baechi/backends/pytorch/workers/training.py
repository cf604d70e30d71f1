"""A worker in a training loop: steps, checkpoints, and going on from them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from baechi.backends.heap import map_large_blocks
from baechi.backends.limits import ALLOWANCE_BYTES, limit_cuda, limit_memory
from baechi.backends.pytorch.checkpoint import Shard, load, save
from baechi.backends.pytorch.materialize import record
from baechi.backends.pytorch.statefile import export
from baechi.backends.pytorch.steps import latest, prune, step_directory
from baechi.backends.pytorch.workers.part import Part
from baechi.backends.pytorch.workers.worker import Stamps, Worker
from baechi.backends.pytorch.workers.world import World, connect, explained, settle
from baechi.errors import BaechiError

__all__ = ["Training", "begin"]

_STEPS = "steps"


def begin(part: Part, build: nn.Module | Callable[[], nn.Module], world: World, *, capped: bool = True) -> "Training":
    """Join the other workers and make the weights that are here, and no others.

    Args:
        part: what to do.
        build: the module, or what makes it. Where its constructor cannot be recorded, it is built plainly and
            the rest of it thrown away.
        world: the other workers.
        capped: whether this process is held to the memory of its device from now on.

    Raises:
        BaechiError: B607 when the module is not the captured one, B615 when its weights pass the cap, B616 when
            the system does not let it, B617 when another worker is gone.
    """
    with explained(part):
        return _begin(part, build, world, capped)


def _begin(part: Part, build: nn.Module | Callable[[], nn.Module], world: World, capped: bool) -> "Training":
    groups = connect(part, world)
    settle(part)
    if capped:  # before anything is large, for a hole that is there stays there
        map_large_blocks(part.predicted_bytes / max(1, part.cap_bytes - ALLOWANCE_BYTES))
    recording = record((lambda: build) if isinstance(build, nn.Module) else build)
    keys = tuple(recording.module.state_dict())
    if capped and part.place.type == "cpu":
        limit_memory(part.cap_bytes)
    elif capped:
        limit_cuda({part.place: part.cap_bytes})
    weights = recording.values([*part.parameters, *part.buffers])
    del recording
    return Training(Worker(part, groups=groups).load(weights, weights), keys)


class Training:
    """The share of this process in the training of a placed model; every worker calls the same methods.

    Args:
        worker: loaded.
        keys: the plain model's ``state_dict`` keys in their order, for `export`.

    Attributes:
        worker: what runs the steps.
        steps: how many have been trained, those before a checkpoint included.
    """

    def __init__(self, worker: Worker, keys: Sequence[str] = ()) -> None:
        self.worker = worker
        self._keys = tuple(keys)
        self.steps = 0
        self._saved: Path | None = None  # where this very state is

    def __call__(self, *args: Any, target: Any = None, **kwargs: Any) -> Tensor | None:
        """Train one step on these inputs.

        Returns:
            The loss on the worker that has it, None on the others.

        Raises:
            BaechiError: as `Worker.step`.
        """
        given = (args, kwargs) if target is None else (args, kwargs, target)
        return self.step(pytree.tree_leaves(given))

    def step(self, inputs: Sequence[Any]) -> Tensor | None:
        """The same on flattened inputs."""
        loss = self.worker.step(*inputs)
        self._trained()
        return loss

    def trace(self, inputs: Sequence[Any]) -> Stamps:
        """Train one step on flattened inputs as `step` does, and note when everything happens."""
        stamps = self.worker.trace(*inputs)
        self._trained()
        return stamps

    def _trained(self) -> None:
        self.steps += 1
        self._saved = None

    @property
    def param_groups(self) -> Iterable[dict[str, Any]]:
        """The options of the optimisers that are here, to change the learning rate."""
        return self.worker.param_groups

    def save(self, root: str | Path, extra: Mapping[str, Any] | None = None, *, keep: int = 2) -> Path:
        """Write a checkpoint of the model, the optimiser and the random stream, each worker its share.

        Args:
            root: directory of all checkpoints, which all workers see.
            extra: small plain data to find again, the same on all workers.
            keep: how many checkpoints stay.

        Returns:
            The checkpoint's directory, which appears when all of it is written.

        Raises:
            BaechiError: B614 when it cannot be written, B615 or B617 when memory or another worker is gone.
        """
        worker, part = self.worker, self.worker.part
        last = part.draws[1] if part.draws is not None else 0
        shard = Shard(
            worker.parameters,
            worker.buffers,
            worker.optimizer_state,
            {**(extra or {}), _STEPS: self.steps},
            worker.turns.state if part.rank == last else None,
        )
        directory = step_directory(root, self.steps)
        with explained(part):
            save(directory, shard, tied=part.tied, keys=self._keys)
        if part.rank == 0:
            prune(root, keep)
        self._saved = directory
        return directory

    def resume(self, root: str | Path) -> Mapping[str, Any]:
        """Go on from the newest whole checkpoint, whatever plan and number of workers wrote it.

        Returns:
            The `extra` that was saved with it.

        Raises:
            BaechiError: B611 when there is none, B612 when it is of another model, B613 when it is damaged.
        """
        found = latest(root)
        if found is None:
            raise BaechiError("B611", f"no whole checkpoint is in '{root}'", help="train with --checkpoint first")
        worker, part = self.worker, self.worker.part
        with explained(part):
            shard = load(
                found,
                {name: part.sources[op].shape for name, op in part.parameters.items()},
                {name: part.sources[op].shape for name, op in part.buffers.items()},
            )
            worker.load(shard.parameters, shard.buffers)
            worker.load_optimizer_state(shard.optimizer)
        if shard.rng is not None:
            worker.turns.state = shard.rng
        worker.turns.restart()
        extra = dict(shard.extra)
        self.steps = extra.pop(_STEPS)
        self._saved = None
        return extra

    def export(self, root: str | Path, path: str | Path) -> None:
        """Write the weights as ``torch.save(model.state_dict(), path)`` would; no process holds them all.

        Args:
            root: directory of checkpoints, to which one is added, unless `save` has just made one.
            path: the file.

        Raises:
            BaechiError: as `save`; the workers that have no error of their own raise B617.
        """
        directory = self._saved or self.save(root)
        if self.worker.part.rank == 0:
            export(directory, path)
        with explained(self.worker.part):
            dist.barrier()
