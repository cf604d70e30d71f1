"""What a compressor is, and how it is applied to each tensor of a flat vector."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

__all__ = ["Compressor", "Key", "OneOf", "decode", "encode", "positive"]


class Key(NamedTuple):
    """What a random choice is a function of.

    Attributes:
        seed: of the run.
        step: in it.
        use: which of a step's choices.
        tensor: which of the model's.
        worker: who chooses; -1 where all must choose the same.
    """

    seed: int
    step: int
    use: int = 0
    tensor: int = 0
    worker: int = -1

    def number(self) -> int:
        """63 bits, the same on every machine.

        Example:
            >>> Key(0, 1).number() == Key(0, 1).number() != Key(0, 2).number()
            True
        """
        return int.from_bytes(blake2b(struct.pack("<5q", *self), digest_size=8).digest(), "little") >> 1

    def generator(self) -> torch.Generator:
        """A stream on the CPU."""
        return torch.Generator().manual_seed(self.number())


class Compressor(Protocol):
    """C: a vector in few bytes.

    Attributes:
        shared: all workers choose the same elements, and send them as they are: the mean of what they
            send is what the mean would have sent, and an all-reduce takes it.
    """

    @property
    def shared(self) -> bool:
        """As above."""

    def encode(self, v: Tensor, key: Key) -> Tensor:
        """What goes on the wire: elements of `v`'s type when `shared`, else bytes.

        Args:
            v: (d,).
            key: of the choice.
        """

    def decode(self, sent: Tensor, size: int, dtype: torch.dtype, key: Key) -> Tensor:
        """C(v), (size,), from what `encode` gave for the same key."""

    def nbytes(self, size: int, itemsize: int) -> int:
        """Bytes on the wire for a vector of `size` elements of `itemsize` bytes."""

    def contraction(self, size: int) -> float:
        """The delta of E|C(v) - v|^2 <= (1 - delta) |v|^2 for every v; 0 where there is none."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """What compressors have in common that send one element of so many.

    Attributes:
        ratio: of how many.
    """

    ratio: float

    @classmethod
    def parse(cls, ratio: str) -> Self:
        """From text.

        Raises:
            ValueError: when the ratio is below 1.
        """
        return cls(positive(ratio))


def encode(c: Compressor, v: Tensor, sizes: Sequence[int], key: Key) -> Tensor:
    """What goes on the wire for a flat vector of several tensors.

    Args:
        c: is applied to each tensor by itself.
        v: (d,).
        sizes: of the tensors in it; their sum is d.
        key: of the first tensor; the others' have the numbers that follow.
    """
    return torch.cat(
        [c.encode(part, key._replace(tensor=key.tensor + n)) for n, part in enumerate(torch.split(v, list(sizes)))]
    )


def decode(c: Compressor, sent: Tensor, sizes: Sequence[int], dtype: torch.dtype, key: Key) -> Tensor:
    """C(v), (d,), from what `encode` gave; arguments as there."""
    unit = sent.element_size()
    lengths = [c.nbytes(size, dtype.itemsize) // unit for size in sizes]
    parts = zip(torch.split(sent, lengths), sizes, strict=True)
    return torch.cat(
        [c.decode(part, size, dtype, key._replace(tensor=key.tensor + n)) for n, (part, size) in enumerate(parts)]
    )


def positive(text: str) -> float:
    """A ratio of at least 1 from text.

    Raises:
        ValueError: when it is none.
    """
    ratio = float(text)
    if not 1 <= ratio < float("inf"):
        raise ValueError(text)
    return ratio
