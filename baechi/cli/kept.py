"""Captured graphs, kept on this machine by digest: who looks at a plan need not capture its model again."""

import gzip
import json
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from baechi.errors import BaechiError

if TYPE_CHECKING:
    from baechi.ir.graph import Graph
    from baechi.target import Target

__all__ = ["keep_graph", "kept_graph"]

_MOST, _LEVEL = 32, 1


def keep_graph(target: "Target", graph: "Graph") -> None:
    """Keep what was captured of a target, and forget what was not asked for the longest; a file is kept as it is.

    Where nothing can be written, nothing is kept.
    """
    if target.job is None:
        return
    from baechi.files import write_atomic
    from baechi.ir.json import graph_to_dict

    path = _path(graph.digest)
    with suppress(OSError, BaechiError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, gzip.compress(json.dumps(graph_to_dict(graph)).encode(), _LEVEL))
        others = sorted((p for p in path.parent.iterdir() if p != path), key=lambda p: p.stat().st_mtime)
        for old in others[: max(0, len(others) - _MOST + 1)]:
            old.unlink(missing_ok=True)


def kept_graph(digest: str) -> "Graph | None":
    """The graph with this digest, as it was captured last; None when it is not there or damaged."""
    from baechi.ir.json import graph_from_dict

    path = _path(digest)
    try:
        graph = graph_from_dict(json.loads(gzip.decompress(path.read_bytes())))
    except (OSError, EOFError, ValueError, zlib.error, BaechiError):
        return None
    with suppress(OSError):
        path.touch()
    return graph if graph.digest == digest else None


def _path(digest: str) -> Path:
    from baechi.profile.machine import cache_directory

    return cache_directory() / "graphs" / f"{digest}.json.gz"
