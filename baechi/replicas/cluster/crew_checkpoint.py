"""Checkpoints of a run of clusters: a file for each stage of each cluster."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from baechi.errors import BaechiError
from baechi.replicas.cluster.checkpoints import Checkpoints
from baechi.replicas.ravnest.layout import Layout, Seat
from baechi.replicas.ravnest.stage import Stage

__all__ = ["load_stage", "save_stage", "stage_checkpoints"]


def stage_checkpoints(directory: str, layout: Layout, seat: Seat) -> Checkpoints:
    """The files of a stage, in a directory that all stages write to."""
    names = tuple(_file(Seat(c, s)) for c, peers in enumerate(layout.peers) for s in range(len(peers)))
    return Checkpoints(directory, _file(seat), names)


def save_stage(
    kept: Checkpoints, layout: Layout, done: int, turn: int, stage: Stage, values: Mapping[str, Tensor]
) -> None:
    """Write what a stage needs to go on.

    Args:
        kept: the stage's files.
        layout: that the stage is of.
        done: micro-batches that the cluster has worked off.
        turn: averages that it has taken part in.
        stage: to be kept.
        values: the stage's parameters and buffers.

    Raises:
        BaechiError: B804 when nothing can be written.
    """
    held = {name: value.detach() for name, value in values.items()}
    kept.save(done, {"graph": layout.graph, "done": done, "turn": turn, "weights": held, "stage": stage.state()})


def load_stage(
    kept: Checkpoints, folder: Path, layout: Layout, stage: Stage, values: Mapping[str, Tensor]
) -> tuple[int, int]:
    """Put a stage where it was; returns how many micro-batches and averages were done.

    Raises:
        BaechiError: B804 on a file that cannot be read, or is of another model or cut.
    """
    state = kept.load(folder)
    if state["graph"] != layout.graph or state["weights"].keys() != values.keys():
        what = f"'{folder}' is of another model, or of other clusters"
        raise BaechiError("B804", what, help="give another --checkpoint directory")
    with torch.no_grad():
        for name, value in values.items():
            value.copy_(state["weights"][name])
    stage.restore(state["stage"])
    return state["done"], state["turn"]


def _file(seat: Seat) -> str:
    return f"cluster-{seat.cluster}-stage-{seat.stage}.pt"
