"""Compile all loops that a placement may need, on all cores, and keep the machine code on disk."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context

from baechi.config import cores
from baechi.cost.problem import Problem
from baechi.ir.bulk import uncollected
from baechi.ir.cluster import Cluster, Device
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.ir.plan import OBJECTIVES, Objective
from baechi.ir.verify import verify
from baechi.models.graphs import dag, random_dag
from baechi.passes import microbatches
from baechi.placers import Metis, Single, get_placer, make_plan
from baechi.placers.search import improve, justify
from baechi.placers.variants import variants
from baechi.sim.bounds import bounds
from baechi.sim.evaluate import Schedule, judge

__all__ = ["PARTS", "compile_all", "compile_part", "place_steps"]

_MOST_PROCESSES = 4  # one of the loops alone takes a quarter of the time
_TRIES = 20
_WORK = 1e8  # of `auto`, enough that local search begins
_SHARES = (2.0, 0.25)  # of all bytes that a step makes, so that nothing is over a cap and that much is


def compile_all() -> float:
    """Compile what is not on disk yet and place steps with it; returns the processor time, in seconds.

    Raises:
        ArithmeticError: as `place_steps`.
    """
    began = _spent()
    with ProcessPoolExecutor(min(cores(), _MOST_PROCESSES), get_context("spawn")) as pool:
        for objective in OBJECTIVES:  # the parts of one after those of the other, for they take the same
            list(pool.map(compile_part, PARTS, repeat(objective)))
    place_steps()
    return _spent() - began


def compile_part(part: str, objective: Objective) -> None:
    """Do one of `PARTS` for small steps; what it takes is compiled, unless it is on disk."""
    with uncollected():
        for problem in _problems(objective):
            PARTS[part](problem)


def place_steps() -> None:
    """Place small steps as `auto` does.

    Raises:
        ArithmeticError: when a plan is wrong.
    """
    for problem in (problem for objective in OBJECTIVES for problem in _problems(objective)):
        broken = verify(problem.graph, make_plan(get_placer("auto", work=_WORK), problem, 0))
        if broken:
            raise ArithmeticError(broken[0])


def _spent() -> float:
    """Processor time of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


def _problems(objective: Objective) -> Iterator[Problem]:
    step = _step()
    for graph in (step, microbatches(step, 2), random_dag(0, 40, groups=True)):
        made = sum(tensor.nbytes + op.persistent_bytes for op in graph.ops for tensor in op.outputs)
        for share in _SHARES:
            devices = tuple(Device(f"d:{k}", round(share * made)) for k in range(4))
            yield Problem(graph, Cluster(devices), objective=objective)


def _step() -> Graph:
    """A small training step: each op of a graph has a twin that reads what it makes and the gradients of its readers."""
    forward = dag("layered", 60, 1)
    ops = list(forward.ops)
    for op in reversed(forward.ops):
        readers = dict.fromkeys(reader.name for t in op.outputs for reader in forward.readers[t.name])
        read = (*(t.name for t in op.outputs), *(f"{name}.grad" for name in readers))
        made = (Tensor(f"{op.name}.grad", sum(t.nbytes for t in op.outputs)),)
        ops.append(Op(f"{op.name}.back", "back", read, made, phase="backward", seconds=op.seconds, forward=op.name))
    return Graph(tuple(ops), "step")


def _alone(problem: Problem) -> Schedule:
    (schedule,) = Single().schedules(problem, 0)
    return schedule


def _schedule(name: str) -> Callable[[Problem], object]:
    return lambda problem: list(get_placer(name).schedules(problem, 0))


PARTS: dict[str, Callable[[Problem], object]] = {
    "m-etf": _schedule("m-etf"),
    "judge": lambda problem: judge(problem.arrays, _alone(problem)),
    "bounds": lambda problem: bounds(problem, thorough=True),
    "search": lambda problem: improve(problem.arrays, _alone(problem), tries=_TRIES, seed=0),
    "views": lambda problem: list(variants(problem)),
    "justify": lambda problem: justify(problem.arrays, _alone(problem), tries=_TRIES, seed=0),
    **{name: _schedule(name) for name in ("heft", "pipeline", "contiguous", "m-topo", "m-sct")},
}
"""What placers do, by what it is called, the longest to compile first; no two parts need much that is the same."""
if Metis.available():
    PARTS["metis"] = _schedule("metis")
