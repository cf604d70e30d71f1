"""Compressors of the vectors that workers exchange: each says exactly what it puts on the wire.

The next compressor is one new file, and a line here.
"""

from typing import TYPE_CHECKING

from baechi.errors import BaechiError
from baechi.replicas.registry import Registry

if TYPE_CHECKING:
    from baechi.replicas.compress.base import Compressor

__all__ = ["COMPRESSORS", "compressor"]

COMPRESSORS = Registry(
    "compressor",
    "B830",
    {
        "identity": "baechi.replicas.compress.plain:Identity",
        "none": "baechi.replicas.compress.plain:Nothing",
        "random-block": "baechi.replicas.compress.random_block:RandomBlock",
        "random-k": "baechi.replicas.compress.random_k:RandomK",
        "top-k": "baechi.replicas.compress.top_k:TopK",
        "sign": "baechi.replicas.compress.sign:Sign",
        "qsgd": "baechi.replicas.compress.qsgd:Qsgd",
    },
)
"""By name, the module and the class of a compressor."""


def compressor(spec: str) -> "Compressor":
    """The compressor that a text names.

    Args:
        spec: a name of `COMPRESSORS`, and after a colon what it takes: `random-block:16`, `random-k:16` and
            `top-k:100` send a 16th and a 100th of the elements, `qsgd:4` 4 bits of each, `qsgd:2:shrunk` 2 and
            is made a contraction; `sign` has a scale for each tensor, `sign:32` one for each 32 elements; `identity`
            (all) and `none` (nothing) take nothing. `random-block:2+sign` is the signs of every second element;
            what comes before a plus is random-block or random-k.

    Raises:
        BaechiError: B830 when there is none, or it does not take what follows.

    Example:
        >>> compressor("random-block:16").nbytes(1600, 4)
        400
    """
    outer, plus, rest = spec.partition("+")
    if plus:
        return _composed(outer, rest, spec)
    name, *given = spec.split(":")
    cls = COMPRESSORS.find(name)
    try:
        made: Compressor = cls.parse(*given)
    except (TypeError, ValueError):
        raise BaechiError(
            "B830", f"compressor '{spec}': it does not take that", help="see baechi.replicas.compress"
        ) from None
    return made


def _composed(outer: str, inner: str, spec: str) -> "Compressor":
    from baechi.replicas.compress.composed import Composed

    if outer.partition(":")[0] not in ("random-block", "random-k"):
        raise BaechiError("B830", f"compressor '{spec}' begins with '{outer}'", help="random-block or random-k")
    return Composed(compressor(outer), compressor(inner))
