"""What a hostile peer would have sent, had it been honest."""

from baechi.errors import BaechiError
from baechi.replicas.rules.stack import Rows, Stack, Vectors, as_tensor, shards_of

__all__ = ["given", "own_rows"]


def own_rows(honest: Stack, q: int, own: Vectors | None) -> Rows:
    """Shards (q, d_k), fresh: the hostile peers' own vectors, or copies of the honest ones in turn.

    Raises:
        BaechiError: B823 when their own do not fit the others'.
    """
    if own is not None:
        return [part.clone() for part in given(honest, q, own, "own")]
    chosen = [honest.kept[i % len(honest)] for i in range(q)]
    return [shard[chosen] for shard in honest.shards()]


def given(honest: Stack, q: int, rows: Vectors, what: str) -> Rows:
    """Shards (q, d_k) that somebody gives, as tensors; errors as `own_rows`."""
    found = [as_tensor(part, what) for part in shards_of(rows)]
    shapes, expected = [tuple(part.shape) for part in found], [(q, shard.shape[1]) for shard in honest.shards()]
    if shapes != expected:
        raise BaechiError("B823", f"{what} has shapes {shapes}, not {expected}")
    return found
