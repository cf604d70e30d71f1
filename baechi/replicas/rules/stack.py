"""The vectors of the peers, one above another, in the shards that they come in; read in blocks of columns."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baechi.errors import BaechiError

__all__ = ["Array", "Rows", "Stack", "Vectors", "as_tensor", "like", "shards_of"]

Array: TypeAlias = NDArray[Any]
Vectors: TypeAlias = Tensor | Array | Iterable[Tensor | Array]
"""(m, d) as a tensor or an array, or shards (m, d_k)."""
Rows: TypeAlias = list[Tensor]
"""One vector, or several, in shards."""

_CPU_BLOCK, _CUDA_BLOCK = 1 << 19, 1 << 25
"""Numbers of a block: it fits a processor's cache, and is worth a kernel's launch."""
_CPU_WIDTH = 24 << 10
"""Columns of a block at most: below torch's grain of 32,768, where a row is not split among threads that then wait."""


class Stack:
    """The vectors of a round.

    Args:
        X: as `aggregate` takes it.

    Raises:
        BaechiError: B823 when there are none, they do not fit together, or none is finite.

    Attributes:
        peers: how many vectors were given.
        rejected: how many of them are not finite.
        kept: which are: their rows in X.

    Example:
        >>> stack = Stack(torch.tensor([[1.0, 2.0], [float("nan"), 0.0], [3.0, 4.0]]))
        >>> stack.kept, stack.rejected, stack.columns(lambda block: block.sum(0))
        ((0, 2), 1, [tensor([4., 6.])])
    """

    def __init__(self, X: Vectors) -> None:
        self._single = isinstance(X, (Tensor, np.ndarray))
        self._source = shards_of(X)
        self.peers, finite = self._look()
        self.kept = tuple(int(i) for i in np.flatnonzero(finite))
        self.rejected = self.peers - len(self.kept)
        if not self.kept:
            what = f"of {self.peers} peers none has a finite vector" if self.peers else "a round without peers"
            raise BaechiError("B823", what, help="keep the model as it is, and wait for the next round")

    @classmethod
    def of(cls, *rows: Vectors) -> "Stack":
        """A stack of single vectors (d,), or of shards of them."""
        single = isinstance(rows[0], (Tensor, np.ndarray))
        parts = zip(*([row] if single else list(row) for row in rows), strict=True)
        try:
            shards = [_joined(part) for part in parts]
        except (ValueError, RuntimeError) as error:
            raise BaechiError("B823", f"the vectors do not fit together: {error}") from None
        return cls(shards[0] if single else shards)

    def __len__(self) -> int:
        return len(self.kept)

    def bears(self, hostile: int) -> int:
        """How many of the kept peers may be hostile, when so many of all may: those left out are among them."""
        return max(0, hostile - self.rejected)

    def shards(self) -> Iterator[Tensor]:
        """Each (m, d_k), with the rows that are left out; not copied."""
        for i, shard in enumerate(self._source):
            yield as_tensor(shard, f"shard {i}" if not self._single else "X")

    def columns(self, f: Callable[[Tensor], Tensor]) -> Rows:
        """What a function makes of each column.

        Args:
            f: from (kept, w) to (w,); it may overwrite what it is given.
        """
        found = []
        for shard in self.shards():
            out = shard.new_empty(shard.shape[1])
            for begin, end, block in self._blocks(shard, _working(shard.dtype)):
                out[begin:end] = f(block)
            found.append(out)
        return found

    def combination(self, weights: Array) -> Rows:
        """The sum of the kept vectors with some weights, (kept,); those with weight 0 are not touched."""
        used = np.flatnonzero(weights)
        rows = [self.kept[i] for i in used]
        shares = torch.from_numpy(np.asarray(weights, np.float64)[used])
        if len(used) == 1 and shares[0] == 1:
            return self.row(int(used[0]))
        found = []
        for shard in self.shards():
            out, w = shard.new_empty(shard.shape[1]), shares.to(shard.device, _working(shard.dtype))
            for begin, end, block in self._blocks(shard, w.dtype, rows):
                out[begin:end] = w @ block
            found.append(out)
        return found

    def row(self, i: int) -> Rows:
        """A copy of the i-th kept vector."""
        return [shard[self.kept[i]].clone() for shard in self.shards()]

    def products(self, origin: Rows | None = None) -> Array:
        """(kept, kept) in float64: the inner products of the vectors less an origin.

        Args:
            origin: shards (d_k,); the zero vector when None.
        """
        found = np.zeros((len(self), len(self)))
        for k, shard in enumerate(self.shards()):
            total = torch.zeros(len(self), len(self), dtype=torch.float64, device=shard.device)
            for begin, end, block in self._blocks(shard, torch.float64):
                if origin is not None:
                    block -= origin[k][begin:end].to(block)
                total.addmm_(block, block.T)
            found += total.cpu().numpy()
        return found

    def near(self) -> int:
        """A kept vector whose length is the median one: with more than half honest, no longer than an honest one.

        Inner products are taken from there: from a hostile vector far away, the distances of the others would drown.
        """
        squares = np.zeros(self.peers)
        for shard in self.shards():
            lengths = torch.linalg.vector_norm(shard, dim=1, dtype=_working(shard.dtype))
            squares += lengths.double().square().cpu().numpy()
        return int(np.argsort(squares[list(self.kept)], kind="stable")[(len(self) - 1) // 2])

    def squared_distances(self) -> Array:
        """(kept, kept) in float64: |u - v|^2, from one product of matrices for each block; inf where that overflows."""
        gram = self.products(self.row(self.near()))
        squares = np.diagonal(gram)
        with np.errstate(invalid="ignore"):
            apart: Array = squares[:, None] + squares[None] - 2 * gram
        apart = np.where(np.isnan(apart), np.inf, np.maximum(apart, 0.0))
        np.fill_diagonal(apart, 0.0)
        return apart

    def measurable(self, gram: Array) -> Array:
        """(kept,): whose squared length in `products` has not overflowed.

        Raises:
            BaechiError: B823 when nobody's has.
        """
        finite: Array = np.isfinite(np.diagonal(gram))
        if not finite.any():
            raise BaechiError("B823", "the squared length of every peer's vector overflows", help="scale them down")
        return finite

    def fitting(self, x: Vectors, what: str) -> Rows:
        """A vector of the same shards as those of the stack, as tensors.

        Raises:
            BaechiError: B823 when it is none.
        """
        found = [as_tensor(part, what) for part in shards_of(x)]
        shapes, expected = [tuple(part.shape) for part in found], [(shard.shape[1],) for shard in self.shards()]
        if shapes != expected:
            raise BaechiError("B823", f"{what} has shapes {shapes}, not {expected} as the vectors")
        return found

    def returned(self, rows: Rows) -> Any:
        """A result as the vectors were given: array for array, shards for shards."""
        found = [like(row, shard) for row, shard in zip(rows, self._source, strict=True)]
        return found[0] if self._single else found

    def _look(self) -> tuple[int, Array]:
        """How many peers there are, and which have finite vectors."""
        finite: Array | None = None
        for i, shard in enumerate(self.shards()):
            if shard.dim() != 2 or (finite is not None and len(shard) != len(finite)):
                expected = "(m, d)" if finite is None else f"({len(finite)}, d_k) as those before"
                what = f"shard {i}" if not self._single else "X"
                raise BaechiError(
                    "B823", f"{what} has shape {tuple(shard.shape)}, not {expected}", help="a row for each peer"
                )
            finite = np.ones(len(shard), bool) if finite is None else finite
            sums = torch.isfinite(shard.sum(1))  # NaN and infinities are not lost in a sum; all finite, it may overflow
            for row in torch.nonzero(~sums).flatten().tolist():
                finite[row] &= bool(torch.isfinite(shard[row]).all())
        return (0, np.zeros(0)) if finite is None else (len(finite), finite)

    def _blocks(
        self, shard: Tensor, dtype: torch.dtype, rows: Sequence[int] | None = None
    ) -> Iterator[tuple[int, int, Tensor]]:
        """Copies of the columns begin to end of the kept rows, or some of all; one at a time, in one place."""
        chosen = self.kept if rows is None else rows
        step = _width(shard, len(chosen))
        place = torch.empty(len(chosen) * min(step, shard.shape[1]), dtype=dtype, device=shard.device)
        for begin in range(0, shard.shape[1], step):
            end = min(begin + step, shard.shape[1])
            block = place[: len(chosen) * (end - begin)].view(len(chosen), end - begin)
            for place_of, row in zip(block.unbind(0), chosen, strict=True):
                place_of.copy_(shard[row, begin:end])
            yield begin, end, block


def as_tensor(x: Tensor | Array, what: str = "X") -> Tensor:
    """A tensor of floats, without copying where it is one, or an array of them.

    Raises:
        BaechiError: B823 when it has no numbers.
    """
    if isinstance(x, Tensor):
        if not x.is_floating_point():
            raise BaechiError("B823", f"{what} is of {x.dtype}", help="give floats")
        return x.detach()
    x = np.asarray(x)
    if x.dtype.kind in "iu":
        x = x.astype(np.float64)
    if x.dtype not in (np.float16, np.float32, np.float64):
        raise BaechiError("B823", f"{what} is of {x.dtype}", help="give floats of 16, 32 or 64 bits")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it may be read-only, as snapshots are: nobody writes to it
        return torch.from_numpy(x if min(x.strides, default=0) >= 0 else x.copy())


def like(row: Tensor, given: Tensor | Array) -> Tensor | Array:
    """A tensor as what was given: a tensor, or an array."""
    return row if isinstance(given, Tensor) else row.numpy()


def shards_of(X: Any) -> Iterable[Tensor | Array]:
    """The shards, to be read as often as needed.

    Raises:
        BaechiError: B823 when there are none.
    """
    if isinstance(X, (Tensor, np.ndarray)):
        return [X]
    if isinstance(X, (str, bytes)) or not isinstance(X, Iterable):
        raise BaechiError("B823", f"a {type(X).__name__} is no vectors", help="give (m, d), or shards (m, d_k)")
    return list(X) if isinstance(X, Iterator) else X


def _joined(rows: Sequence[Tensor | Array]) -> Tensor | Array:
    if isinstance(rows[0], Tensor):
        return torch.stack([as_tensor(row).to(rows[0]) for row in rows])
    return np.stack([np.asarray(row) for row in rows])


def _working(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype.itemsize < 4 else dtype


def _width(shard: Tensor, rows: int) -> int:
    """Columns of a block."""
    if shard.device.type == "cpu":
        return max(1, min(_CPU_WIDTH, _CPU_BLOCK // max(1, rows)))
    return max(1, _CUDA_BLOCK // max(1, rows))
