"""Labels by the repeated blocks of a model, so that a search can move layers rather than ops."""

from collections.abc import Iterator

from baechi.cost.problem import Ints, Problem
from baechi.passes.repeats import repeats
from baechi.placers.clusters import first_members, join_equal, roots

__all__ = ["block_labels"]


def block_labels(problem: Problem) -> Iterator[Ints]:
    """Labels of ops to be placed together, coarse to fine: blocks, their submodules, innermost modules.

    Ops outside of any block keep their colocation groups. Nothing comes for a graph in which
    nothing is repeated.

    Yields:
        (ops,) labels, as for `Problem.with_groups`.
    """
    found = repeats(problem.graph)
    if found is None:
        return
    a = problem.arrays
    for inside, width in (
        (found.block * 0, 1),
        (found.part, found.part.max() + 1),
        (found.piece, found.piece.max() + 1),
    ):
        parent = first_members(a.group, len(a.group_ptr) - 1)
        join_equal(parent, (found.block * width + inside) * (found.block >= 0) - (found.block < 0))
        yield roots(parent)
