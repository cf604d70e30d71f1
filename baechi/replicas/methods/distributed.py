"""The collective over torch.distributed: one process for each worker, gloo on CPUs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from baechi.errors import BaechiError

__all__ = ["TorchCollective"]


class TorchCollective:
    """Answers over a process group; a worker's index is its rank.

    Args:
        group: a process group; the default one when None.
    """

    def __init__(self, group: Any = None) -> None:
        self._group, self._workers = group, distributed.get_world_size(group)

    def mean(self, tensor: Tensor, active: bool = True, weight: float | None = None) -> Tensor:
        """As `Collective`: one all-reduce, that also counts who takes part; a weighted one sums the weights before."""
        if weight is not None:
            return self._weighted(tensor, weight if active else 0.0)
        flat = torch.cat(
            [tensor.flatten() if active else torch.zeros_like(tensor).flatten(), tensor.new_ones(1) * active]
        )
        distributed.all_reduce(flat, group=self._group)
        if not flat[-1] > 0.5:
            raise BaechiError("B834", "no worker takes part")
        return (flat[:-1] / flat[-1]).view_as(tensor)

    def _weighted(self, tensor: Tensor, weight: float) -> Tensor:
        total = torch.full((1,), weight, dtype=torch.float64, device=tensor.device)
        distributed.all_reduce(total, group=self._group)
        if not total > 0:
            raise BaechiError("B834", "no worker takes part")
        share = tensor * (weight / float(total)) if weight else torch.zeros_like(tensor)
        distributed.all_reduce(share, group=self._group)
        return share

    def gather(self, tensor: Tensor, active: bool = True) -> Tensor:
        """As `Collective`: those that do not take part send what nobody reads."""
        flags = [torch.zeros(1, dtype=torch.uint8, device=tensor.device) for _ in range(self._workers)]
        distributed.all_gather(flags, torch.full_like(flags[0], int(active)), group=self._group)
        rows = [torch.empty_like(tensor) for _ in range(self._workers)]
        distributed.all_gather(rows, tensor.contiguous(), group=self._group)
        taken = [row for row, flag in zip(rows, flags, strict=True) if flag]
        if not taken:
            raise BaechiError("B834", "no worker takes part")
        return torch.stack(taken)

    def swap(self, tensor: Tensor, peers: Sequence[int]) -> Tensor:
        """As `Collective`: sends and receives that are all posted at once."""
        if not peers:
            return tensor.new_empty((0, *tensor.shape))
        rows, own = [torch.empty_like(tensor) for _ in peers], tensor.contiguous()
        works = distributed.batch_isend_irecv(
            [distributed.P2POp(distributed.isend, own, group=self._group, group_peer=peer) for peer in peers]
            + [
                distributed.P2POp(distributed.irecv, row, group=self._group, group_peer=peer)
                for row, peer in zip(rows, peers, strict=True)
            ]
        )
        for work in works:
            work.wait()
        return torch.stack(rows)
