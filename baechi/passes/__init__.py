"""Passes: from graph to graph, before the placement."""

from baechi.passes.base import Pass, Pipeline, run, violations
from baechi.passes.coarsen import Coarse, fuse
from baechi.passes.microbatch import microbatches
from baechi.passes.offload import offload, offloadable
from baechi.passes.prune import Prune, prune
from baechi.passes.recompute import recompute, repeatable

__all__ = [
    "Coarse",
    "Pass",
    "Pipeline",
    "Prune",
    "fuse",
    "microbatches",
    "offload",
    "offloadable",
    "prune",
    "recompute",
    "repeatable",
    "run",
    "violations",
]
