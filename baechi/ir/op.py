"""The operator and the tensor: the two records of which a training graph is made."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["PHASES", "Op", "Phase", "Tensor"]

Phase = Literal["forward", "backward", "update"]
PHASES: tuple[Phase, ...] = ("forward", "backward", "update")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value that an op produces.

    Attributes:
        name: unique in the graph.
        nbytes: its size; what one transfer of it moves.
        shape: its dimensions, outermost first.
        dtype: its element type, such as ``float32``.
        alias_of: the tensor whose storage it shares (a view, or the result of an in-place op);
            it needs no memory of its own on the device where it is made.
        held: how many of its bytes its op's `persistent_bytes` hold already (a parameter: all), or lie in
            the memory of the host rather than of the device (an offloaded tensor: all).
        seconds: the time of one transfer, when it is declared rather than left to the link.
        keep: a result of the step, so alive until the step ends.
        scattered: a view whose elements lie apart in memory; each transfer of it sends a dense copy, which
            takes `nbytes` where it is made, from then until the transfer has ended.
    """

    name: str
    nbytes: int = 0
    shape: tuple[int, ...] = ()
    dtype: str = ""
    alias_of: str | None = None
    held: int = 0
    seconds: float | None = None
    keep: bool = False
    scattered: bool = False

    @property
    def packed_bytes(self) -> int:
        """Memory that each transfer of it takes where it is made."""
        return self.nbytes if self.scattered else 0


@dataclass(frozen=True, slots=True)
class Op:
    """One operator of a training step.

    Attributes:
        name: unique in the graph.
        kind: the operator's type, such as ``aten.mm`` or ``parameter``.
        inputs: names of the tensors it reads, each once.
        outputs: the tensors it makes.
        after: names of ops that must end before it starts although no tensor flows (an in-place
            update after the last reader).
        phase: forward, backward or update.
        flops: floating point operations.
        moved_bytes: bytes read from and written to device memory.
        temp_bytes: memory needed only while it runs.
        persistent_bytes: memory held through all steps: parameters, optimiser state, inputs.
        seconds: its time on a device of speed 1 when declared; otherwise the cost model says.
        host_seconds: likewise on a device that works in host memory (`Device.in_host_memory`), where that is another.
        arithmetic: the kind of arithmetic that its FLOPs are, such as ``float32``.
        group: colocation group; ops of one group sit on one device.
        module: path of the module that it came from, such as ``encoder.layers.0``.
        source: ``file:line`` of the user's code.
        forward: name of the forward op that it belongs to (its twin), for backward and update ops.
        key: what a measured time is filed under: op, shapes, dtypes.
        expert: index of the device that an expert's split gives it.
        copy: index of the micro-batch that it works on, when the step is unrolled into several; copies
            of one op share a colocation group.
        draws: whether it takes random numbers, so that running it twice gives two results.
    """

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    after: tuple[str, ...] = ()
    phase: Phase = "forward"
    flops: float = 0.0
    moved_bytes: int = 0
    temp_bytes: int = 0
    persistent_bytes: int = 0
    seconds: float | None = None
    arithmetic: str = "float32"
    group: str | None = None
    module: str = ""
    source: str = ""
    forward: str | None = None
    key: str = ""
    expert: int | None = None
    copy: int | None = None
    draws: bool = False
    host_seconds: float | None = None

    @property
    def path(self) -> str:
        """Its module; for a parameter and its update, which belong to none, the one that their group names.

        Example:
            >>> Op("w", "parameter", group="p:encoder.layers.0.weight").path
            'encoder.layers.0'
        """
        return self.module or (self.group or "").partition(":")[2].rpartition(".")[0]
