"""Checkpoints of a run of clusters: a directory for each moment, a file for each stage of each cluster."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from baechi.errors import BaechiError
from baechi.replicas.cluster.session import prune
from baechi.replicas.ravnest.layout import Layout, Seat
from baechi.replicas.ravnest.stage import Stage

__all__ = ["load_stage", "newest", "save_stage"]

_KEPT = 2


def save_stage(
    directory: str, layout: Layout, seat: Seat, done: int, turn: int, stage: Stage, values: Mapping[str, Tensor]
) -> None:
    """Write what a stage needs to go on; the oldest of its files go.

    Args:
        done: micro-batches that the cluster has worked off.
        turn: averages that it has taken part in.
        values: the stage's parameters and buffers.

    Raises:
        BaechiError: B804 when nothing can be written.
    """
    folder = Path(directory) / f"step-{done:09d}"
    path = folder / _file(seat)
    held = {name: value.detach() for name, value in values.items()}
    state = {"graph": layout.graph, "done": done, "turn": turn, "weights": held, "stage": stage.state()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
    except OSError as error:
        what = f"no checkpoint can be written to '{folder}': {error.strerror or error}"
        raise BaechiError("B804", what, help="is the disk full?") from None
    prune(directory, _whole(directory, layout)[-_KEPT:], path.name)


def newest(directory: str, layout: Layout) -> Path | None:
    """The newest directory that all stages have written to."""
    return next(reversed(_whole(directory, layout)), None)


def load_stage(folder: Path, layout: Layout, seat: Seat, stage: Stage, values: Mapping[str, Tensor]) -> tuple[int, int]:
    """Put a stage where it was; returns how many micro-batches and averages were done.

    Raises:
        BaechiError: B804 on a file that cannot be read, or is of another model or cut.
    """
    path = folder / _file(seat)
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
    except Exception as error:  # noqa: BLE001 - whatever torch finds wrong with a file
        raise BaechiError("B804", f"'{path}' cannot be read: {error}", help="delete its directory") from None
    if state["graph"] != layout.graph or state["weights"].keys() != values.keys():
        what = f"'{path}' is of another model, or of other clusters"
        raise BaechiError("B804", what, help="give another --checkpoint directory")
    with torch.no_grad():
        for name, value in values.items():
            value.copy_(state["weights"][name])
    stage.restore(state["stage"])
    return state["done"], state["turn"]


def _whole(directory: str, layout: Layout) -> list[Path]:
    names = {_file(Seat(c, s)) for c, peers in enumerate(layout.peers) for s in range(len(peers))}
    found = sorted(Path(directory).glob("step-*"))
    return [folder for folder in found if all((folder / name).exists() for name in names)]


def _file(seat: Seat) -> str:
    return f"cluster-{seat.cluster}-stage-{seat.stage}.pt"
