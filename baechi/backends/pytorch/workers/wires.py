"""Transfers between workers over torch.distributed."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from baechi.backends.pytorch.workers.part import Part, Wire

__all__ = ["Lost", "Turns", "Wires"]

_BETWEEN_LOOKS_SECONDS = 1e-3


class Lost(Exception):
    """The connection to another worker broke: to which rank, and how."""

    def __init__(self, peer: int, error: BaseException) -> None:
        super().__init__(peer, error)
        self.peer, self.error = peer, error


class Wires:
    """The ends of all transfers that are on this worker.

    Tensors travel as the dense block of memory that they are, under the number of their transfer.
    A tensor that is sent is held until it has left, one that is received from when its block is
    allocated.

    Args:
        wires: the ends that are here, by number.
        rank: of this worker.
        place: its torch device.
        groups: by (source, destination) rank, the process group of that direction; one group for
            all when empty. NCCL keeps the order of a group, so each direction has its own there.
    """

    def __init__(
        self, wires: Mapping[int, Wire], rank: int, place: torch.device, groups: Mapping[tuple[int, int], Any]
    ) -> None:
        self._wires, self._rank, self._place, self._groups = wires, rank, place, groups
        self._staged = place.type != "cpu" and not groups  # gloo moves memory of the processor only
        self._coming: dict[int, tuple[Any, Tensor]] = {}
        self._going: dict[int, tuple[Any, Tensor]] = {}
        self._sent: dict[int, float] = {}
        self._awaited: dict[int, float] = {}
        self._came: dict[int, float] = {}
        self._is_noting = False
        self._looked = self._posting = 0.0

    def note(self) -> None:
        """From now on, until `noted`, note when transfers begin and when they have arrived."""
        self._sent, self._awaited, self._came, self._is_noting, self._posting = {}, {}, {}, True, 0.0

    def look(self, now: float) -> None:
        """Note which of the transfers on their way here have arrived by now, at most once a millisecond."""
        if now - self._looked < _BETWEEN_LOOKS_SECONDS:
            return
        self._looked = now
        for i, (work, _) in self._coming.items():
            if i not in self._came and work.is_completed():
                self._came[i] = now

    def noted(self) -> tuple[dict[int, float], dict[int, float], dict[int, float]]:
        """When each transfer from here was sent, when there was room for each to here, and when each was seen to have
        arrived; by `time.perf_counter`."""
        self._is_noting = False
        return self._sent, self._awaited, self._came

    def post(self, i: int) -> None:
        """Begin to receive a transfer: from now on its memory is taken."""
        wire = self._wires[i]
        began = time.perf_counter()
        block = torch.empty(wire.layout.numel, dtype=wire.layout.dtype, device="cpu" if self._staged else self._place)
        with _link_to(wire.peer):
            work = dist.irecv(block, wire.peer, group=self._groups.get((wire.peer, self._rank)), tag=i)
        self._coming[i] = work, block
        now = time.perf_counter()
        self._posting += now - began
        if self._is_noting:
            self._awaited[i] = now

    def posting(self) -> float:
        """Seconds that `post` took since this was last asked."""
        seconds, self._posting = self._posting, 0.0
        return seconds

    def take(self, i: int) -> Tensor:
        """Wait for a transfer and return its tensor."""
        work, block = self._coming.pop(i)
        wire = self._wires[i]
        with _link_to(wire.peer):
            work.wait()
        if self._is_noting:
            self._came.setdefault(i, time.perf_counter())
        if self._staged:
            block = block.to(self._place)
        return wire.layout.tensor(block)

    def send(self, i: int, tensor: Tensor) -> None:
        """Begin to send a tensor; it is held until `drain`."""
        wire = self._wires[i]
        if self._is_noting:
            self._sent[i] = time.perf_counter()
        block = wire.layout.block(tensor)
        if self._staged:
            block = block.cpu()
        with _link_to(wire.peer):
            work = dist.isend(block, wire.peer, group=self._groups.get((self._rank, wire.peer)), tag=i)
        self._going[i] = work, block

    def drain(self, i: int) -> None:
        """Wait until a tensor that was sent has left, and let go of it."""
        if i in self._going:
            work, _ = self._going[i]
            with _link_to(self._wires[i].peer):
                work.wait()
            del self._going[i]

    def finish(self) -> None:
        """Wait until all that was sent has left."""
        for i in list(self._going):
            self.drain(i)

    def clear(self) -> None:
        """Forget what is on its way, after a failure."""
        self._coming.clear()
        self._going.clear()


class Turns:
    """The stream of random numbers, which goes from worker to worker in the order of the draws.

    Args:
        part: whose generator it is.
        group: a process group that carries memory of the processor.
    """

    _FIRST_TAG = 1 << 24

    def __init__(self, part: Part, group: Any) -> None:
        self._place, self._group, self._draws, self._rank = part.place, group, part.draws, part.rank
        self._going: list[tuple[int, Any, Tensor]] = []
        self._is_first_step = True

    def begin(self) -> None:
        """Before a step: the last worker that drew in the step before gives the stream to the first."""
        for peer, work, _ in self._going:
            with _link_to(peer):
                work.wait()
        self._going.clear()
        if self._draws is not None and self._draws[0] != self._draws[1] and not self._is_first_step:
            first, last = self._draws
            if self._rank == last:
                self.give(0, first)
            if self._rank == first:
                self.take(0, last)
        self._is_first_step = False

    def give(self, turn: int, peer: int) -> None:
        """Send the state of this worker's generator."""
        state = self.state
        with _link_to(peer):
            work = dist.isend(state, peer, group=self._group, tag=self._FIRST_TAG + turn)
        self._going.append((peer, work, state))

    def take(self, turn: int, peer: int) -> None:
        """Wait for the state of the worker that drew before."""
        state = self.state
        with _link_to(peer):
            dist.recv(state, peer, group=self._group, tag=self._FIRST_TAG + turn)
        self.state = state

    def restart(self) -> None:
        """All workers have the same state again."""
        self._is_first_step = True

    @property
    def state(self) -> Tensor:
        """The state of this worker's generator."""
        return torch.get_rng_state() if self._place.type == "cpu" else torch.cuda.get_rng_state(self._place)

    @state.setter
    def state(self, state: Tensor) -> None:
        if self._place.type == "cpu":
            torch.set_rng_state(state)
        else:
            torch.cuda.set_rng_state(state, self._place)


@contextlib.contextmanager
def _link_to(peer: int) -> Iterator[None]:
    """Whatever the communication library raises means that the other end is lost."""
    try:
        yield
    except RuntimeError as error:
        raise Lost(peer, error) from error
