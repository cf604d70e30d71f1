"""Bytes: a small transformer that predicts the next byte of the source of Python's own standard library."""

import sysconfig
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from baechi.errors import BaechiError
from baechi.replicas.problems.base import Examples, Learner, generator, starting
from baechi.replicas.problems.partition import partition

__all__ = ["Text"]

_BYTES = 256
_CORPUS_BYTES = 4_000_000
_HELD_OUT = 10
"""Each file of so many is held out."""
_SKIPPED = frozenset({"__pycache__", "idlelib", "lib2to3", "site-packages", "test", "tests"})


class Text(Learner):
    """Cross entropy, in nats for each byte, of a causal transformer.

    Args:
        workers: how many.
        width: of the model; heads are 32 wide.
        layers: blocks of attention and a perceptron.
        context: bytes that it sees.
        partition: `iid`: windows of all files; `files`: each worker has consecutive files of its own.
        skew: how unequal the workers' numbers of windows are; as `partition` has it.
        windows: to train on, drawn from all; 0 is all of them.
        batch: windows of a gradient.
        held_out: windows of loss and accuracy, at most.
        seed: of the partition and all draws.
        device: where the data is.
        dtype: of the vectors.

    Raises:
        BaechiError: B820 when an option is out of its range, B821 when there is no source.
    """

    def __init__(
        self,
        workers: int = 8,
        *,
        width: int = 64,
        layers: int = 2,
        context: int = 64,
        partition: str = "iid",
        skew: float = 0.0,
        windows: int = 0,
        batch: int = 8,
        held_out: int = 64,
        seed: int = 0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if width < 32 or width % 32 or layers < 1 or context < 2 or held_out < 1:
            what = f"problem 'bytes': width {width}, {layers} layers, context {context}, {held_out} held out"
            raise BaechiError("B820", what, help="a multiple of 32, at least 1, at least 2, and at least 1")
        train, rest = (_windows(part, context).to(device) for part in _corpus())
        if not 0 <= windows <= len(train):
            raise BaechiError("B820", f"problem 'bytes': {windows} windows of {len(train)}", help="0 is all")
        drawn = torch.randperm(len(train), generator=generator(seed, workers, 4))[:windows].sort().values
        train = train[drawn] if windows else train
        parts = _parts(partition, len(train), workers, seed, skew)
        self._heads, self._layers = width // 32, layers
        self._hidden = torch.full((context, context), float("-inf"), device=device, dtype=dtype).triu(1)
        block = [(width,), (width, 3 * width), (width, width), (width,), (width, 4 * width), (4 * width, width)]
        shapes = [(_BYTES, width), (context, width), *block * layers, (width,)]
        every = max(1, len(rest) // held_out)
        examples, test = _examples(train), _examples(rest[::every][:held_out])
        super().__init__("bytes", shapes, parts, examples, test, batch=batch, seed=seed, dtype=dtype)

    def start(self, seed: int = 0) -> Tensor:
        """As `Problem`: embeddings N(0, 0.1^2), other matrices N(0, 0.02^2), gains 1."""
        stream = starting(seed)
        drawn = [
            torch.ones(shape) if len(shape) == 1 else (0.1 if i < 2 else 0.02) * torch.randn(shape, generator=stream)
            for i, shape in enumerate(self.shapes)
        ]
        return torch.cat([tensor.flatten() for tensor in drawn]).to(self.device, self.dtype)

    def outputs(self, tensors: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """As `Learner`: (windows, context, 256); the embedding is also the last layer."""
        embedding, position, *blocks, gain = tensors
        x = embedding[inputs] + position
        for i in range(self._layers):
            first, qkv, project, second, up, down = blocks[6 * i : 6 * i + 6]
            x = x + self._attend(_normed(x, first) @ qkv) @ project
            x = x + functional.gelu(_normed(x, second) @ up, approximate="tanh") @ down
        return _normed(x, gain) @ embedding.T

    def penalty(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """As `Learner`."""
        return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    def flip(self, targets: Tensor) -> Tensor:
        """As `Learner`: byte c becomes 255 - c."""
        return _BYTES - 1 - targets

    def _attend(self, qkv: Tensor) -> Tensor:
        """Causal attention, written out: the fused kernels have no second derivative."""
        windows, context, _ = qkv.shape
        q, k, v = qkv.view(windows, context, 3, self._heads, 32).permute(2, 0, 3, 1, 4)
        mixed: Tensor = torch.softmax(q @ k.mT / 32**0.5 + self._hidden, dim=-1) @ v
        return mixed.transpose(1, 2).reshape(windows, context, -1)


def _normed(x: Tensor, gain: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * gain


def _examples(windows: Tensor) -> Examples:
    return Examples(windows[:, :-1], windows[:, 1:])


def _windows(text: bytes, context: int) -> Tensor:
    """Consecutive windows, each with one byte more than the context."""
    whole = len(text) // (context + 1) * (context + 1)
    return torch.from_numpy(np.frombuffer(text[:whole], np.uint8).astype(np.int64)).view(-1, context + 1)


def _parts(how: str, windows: int, workers: int, seed: int, skew: float) -> list[Tensor]:
    if how == "files":
        return partition("sorted", torch.arange(windows), workers, seed, skew=skew)
    if how != "iid":
        raise BaechiError("B820", f"no partition '{how}' of bytes", help="one of: iid, files")
    return partition("iid", torch.arange(windows), workers, seed, skew=skew)


@cache
def _corpus() -> tuple[bytes, bytes]:
    """The files in order of name, package by package, up to a size; some are held out."""
    root = Path(sysconfig.get_path("stdlib"))
    train, held_out = bytearray(), bytearray()
    paths = sorted(p for p in root.rglob("*.py") if not _SKIPPED.intersection(p.relative_to(root).parts))
    for i, path in enumerate(paths):
        (held_out if i % _HELD_OUT == 0 else train).extend(path.read_bytes())
        if len(train) >= _CORPUS_BYTES:
            break
    if not held_out or not train:
        raise BaechiError("B821", f"problem 'bytes' needs the source of Python's library, and {root} has none")
    return bytes(train), bytes(held_out)
