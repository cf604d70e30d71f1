"""Passes: from graph to graph, before the placement."""

from baechi.passes.coarsen import Coarse, fuse
from baechi.passes.microbatch import microbatches
from baechi.passes.offload import offload, offloadable
from baechi.passes.recompute import recompute, repeatable

__all__ = [
    "Coarse",
    "fuse",
    "microbatches",
    "offload",
    "offloadable",
    "recompute",
    "repeatable",
]
