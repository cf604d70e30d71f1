"""Error feedback: what compression leaves out is kept, and the mean of what is compressed is exchanged."""

from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from baechi.replicas.compress import compressor
from baechi.replicas.compress.base import Compressor, Key, decode, encode
from baechi.replicas.methods.core import Gather, Mean, Request
from baechi.replicas.methods.descent import refuse

__all__ = ["contracting", "mean_compressed", "psync"]


def contracting(name: str, option: str, spec: str, *, none: bool = False) -> None:
    """Refuse a compressor that there is not, or that is no contraction, for then what is left out may grow.

    Args:
        name: of the method.
        option: of it.
        spec: of the compressor.
        none: whether it may send nothing.

    Raises:
        BaechiError: B830, B831.
    """
    if compressor(spec).contraction(1 << 20) <= 0 and not (none and spec == "none"):
        raise refuse(
            name, f"{option} is '{spec}', which is no contraction", "for qsgd, add ':shrunk' or take more bits"
        )


def mean_compressed(
    v: Tensor, c: Compressor, sizes: Sequence[int], key: Key
) -> Generator[Request, Tensor, tuple[Tensor, Tensor]]:
    """The mean over workers of C(v_i), and this worker's C(v).

    Args:
        v: (d,), of this worker.
        c: the compressor.
        sizes: of the tensors in v.
        key: of the choice; `worker` is who this is.
    """
    sent = encode(c, v, sizes, key)
    own = decode(c, sent, sizes, v.dtype, key)
    if not len(sent):
        return own, own
    if c.shared:
        return decode(c, (yield Mean(sent)), sizes, v.dtype, key), own

    def mean(rows: Tensor) -> Tensor:
        return torch.stack([decode(c, row, sizes, v.dtype, key) for row in rows]).mean(0)

    return (yield Gather(sent, made=mean)), own


def psync(
    v: Tensor, c: Compressor, sizes: Sequence[int], key: Key
) -> Generator[Request, Tensor, tuple[Tensor, Tensor]]:
    """PSync of CSER: r = v - C(v); gives mean_i C(v_i) + r, and r. Arguments as `mean_compressed`."""
    mean, own = yield from mean_compressed(v, c, sizes, key)
    r = v - own
    return mean + r, r
