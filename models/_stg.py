"""Random task graphs made as those of the Standard Task Graph set are."""

import random
from collections.abc import Callable, Mapping

from baechi.errors import BaechiError
from baechi.frontends.stg import read_stg
from baechi.ir.graph import Graph
from baechi.models.base import at_least

__all__ = ["STG_SHAPES", "STG_TIMES", "stg", "stg_text"]

_Edges = Callable[[random.Random, int], list[list[int]]]
_PROBABILITIES = (0.1, 0.2)
_PREDECESSORS = (1, 3, 5)
_PER_LAYER = 5


def stg(n: int, seed: int, *, shape: str = "sameprob", times: str = "uniform", transfer: int = 0) -> Graph:
    """The random task graph of `stg_text`, read.

    Example:
        >>> graph = stg(50, 1, shape="layrpred")
        >>> len(graph), graph.ops[0].seconds, graph.ops[51].seconds
        (52, 0.0, 0.0)
    """
    text = stg_text(n, seed, shape=shape, times=times, transfer=transfer)
    return read_stg(text, f"{shape}_{times}_{n}_{seed}")[0]


def stg_text(n: int, seed: int, *, shape: str = "sameprob", times: str = "uniform", transfer: int = 0) -> str:
    """A random task graph in the set's format; like most of the set's own it has no transfers.

    Args:
        n: number of tasks besides the two dummies.
        seed: of the random numbers.
        shape: ``sameprob`` any earlier task precedes a later one with probability 0.1 or 0.2;
            ``samepred`` a task has 1, 3 or 5 predecessors on average; ``layrprob`` and ``layrpred``
            the same, but only of tasks in the layers before it.
        times: ``uniform`` from 1 to 10, ``exponential`` or ``normal`` with mean 5; whole and at least 1.
        transfer: the longest transfer; 0 for a graph without communication.

    Raises:
        BaechiError: B102 on an unknown shape or times, or fewer than one task.

    Source: Tobita, Kasahara (Journal of Scheduling 2002), section 3.
    """
    for what, value, known in (("shape", shape, STG_SHAPES), ("times", times, STG_TIMES)):
        if value not in known:
            raise BaechiError("B102", f"no {what} '{value}'", help="one of: " + ", ".join(known))
    at_least(1, n=n)
    at_least(0, transfer=transfer)
    r = random.Random(seed)
    before = _SHAPES[shape](r, n)
    ends = sorted(set(range(1, n + 1)) - {j for row in before for j in row})
    rows = [(0, []), *((max(1, round(_TIMES[times](r))), row or [0]) for row in before), (0, ends)]
    lines = [f"{n:11}"]
    for number, (time, row) in enumerate(rows):
        sent = [v for j in row for v in ((j, r.randint(0, transfer)) if transfer else (j,))]
        lines.append("".join(f"{v:11}" for v in (number, time, len(row), *sent)))
    return "\n".join((*lines, f"# {shape}, {times}, seed {seed}", ""))


def _same_probability(r: random.Random, n: int) -> list[list[int]]:
    p = r.choice(_PROBABILITIES)
    return [[j for j in range(1, i) if r.random() < p] for i in range(1, n + 1)]


def _same_predecessors(r: random.Random, n: int) -> list[list[int]]:
    mean = r.choice(_PREDECESSORS)
    return [sorted(r.sample(range(1, i), min(i - 1, r.randint(0, 2 * mean)))) for i in range(1, n + 1)]


def _layers(r: random.Random, n: int) -> list[int]:
    """For each task, how many tasks are in the layers before its own."""
    before: list[int] = []
    while len(before) < n:
        before += [len(before)] * min(r.randint(1, 2 * _PER_LAYER), n - len(before))
    return before


def _layer_probability(r: random.Random, n: int) -> list[list[int]]:
    p = r.choice(_PROBABILITIES)
    return [[j for j in range(1, before + 1) if r.random() < p] for before in _layers(r, n)]


def _layer_predecessors(r: random.Random, n: int) -> list[list[int]]:
    mean = r.choice(_PREDECESSORS)
    return [sorted(r.sample(range(1, b + 1), min(b, r.randint(0, 2 * mean)))) for b in _layers(r, n)]


_SHAPES: Mapping[str, _Edges] = {
    "sameprob": _same_probability,
    "samepred": _same_predecessors,
    "layrprob": _layer_probability,
    "layrpred": _layer_predecessors,
}
_TIMES: Mapping[str, Callable[[random.Random], float]] = {
    "uniform": lambda r: r.randint(1, 10),
    "exponential": lambda r: r.expovariate(1 / 5),
    "normal": lambda r: r.normalvariate(5, 1.5),
}
STG_SHAPES, STG_TIMES = tuple(_SHAPES), tuple(_TIMES)
