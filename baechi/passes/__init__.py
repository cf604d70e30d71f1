"""Passes: from graph to graph, before the placement."""

from baechi.passes.base import Pass, Pipeline, run, violations
from baechi.passes.coarsen import Coarse, fuse
from baechi.passes.colocate import Colocate, colocate
from baechi.passes.coplace import CoPlace, co_place
from baechi.passes.microbatch import microbatches
from baechi.passes.offload import offload, offloadable
from baechi.passes.phases import follow, forward_only, hosts
from baechi.passes.prune import Prune, prune
from baechi.passes.recompute import recompute, repeatable

__all__ = [
    "CoPlace",
    "Coarse",
    "Colocate",
    "Pass",
    "Pipeline",
    "Prune",
    "co_place",
    "colocate",
    "follow",
    "forward_only",
    "fuse",
    "hosts",
    "microbatches",
    "offload",
    "offloadable",
    "prune",
    "recompute",
    "repeatable",
    "run",
    "violations",
]
