"""How near to a proved bound `exact` comes on small graphs, by kind, contention and ratio of communication to computation."""

import time
from dataclasses import replace

from baechi.cost.problem import Problem
from baechi.ir.cluster import CONTENTIONS, UNLIMITED_BYTES, Cluster, Contention, Device
from baechi.ir.graph import Graph
from baechi.models.graphs import DAG_KINDS, dag
from baechi.placers import Exact
from baechi.placers.base import make_plan

__all__ = ["exact_table", "with_ratio"]

_RATIOS = (0.1, 1.0, 5.0)
_DEVICES = 4


def exact_table(ops: int, seconds: float, seed: int) -> None:
    """For each graph the gap and the seconds of waiting for it; `auto`, from which `exact` starts, is part of them."""
    print(
        f"\n### `exact` on {ops} ops and {_DEVICES} devices, at most {seconds:g} s: above the proved bound, seconds\n"
    )
    print("| graph | transfers | " + " | ".join(f"CCR {ratio:g}" for ratio in _RATIOS) + " |")
    print("|---|---|" + "---|" * len(_RATIOS))
    for kind in DAG_KINDS:
        for contention in CONTENTIONS:
            cells = [_cell(with_ratio(dag(kind, ops, seed), ratio), contention, seconds) for ratio in _RATIOS]
            print(f"| {kind} | {contention} | " + " | ".join(cells) + " |", flush=True)


def with_ratio(graph: Graph, ratio: float) -> Graph:
    """The graph with its declared transfers scaled: their mean time becomes `ratio` times that of the ops."""
    computing = sum(op.seconds or 0.0 for op in graph.ops) / len(graph)
    moving = [tensor.seconds or 0.0 for op in graph.ops for tensor in op.outputs]
    factor = ratio * computing / (sum(moving) / len(moving))
    return graph.with_ops(
        replace(op, outputs=tuple(replace(t, seconds=(t.seconds or 0.0) * factor) for t in op.outputs))
        for op in graph.ops
    )


def _cell(graph: Graph, contention: Contention, seconds: float) -> str:
    cluster = Cluster(tuple(Device(f"dev:{d}", UNLIMITED_BYTES) for d in range(_DEVICES)), contention=contention)
    began = time.monotonic()
    plan = make_plan(Exact(seconds=seconds), Problem(graph, cluster), 0)
    return f"{'optimal' if plan.gap == 0 else f'{plan.gap:.2%}'} ({time.monotonic() - began:.0f} s)"
