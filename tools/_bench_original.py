"""m-ETF and m-SCT beside the original's figures, on the same generated graphs."""

import time

from baechi.ir.cluster import Cluster, Device
from baechi.ir.graph import Graph
from baechi.models.graphs import DAG_KINDS, dag
from baechi.placers import get_placer

__all__ = ["original"]

ORIGINAL = {  # (CPU seconds, makespan in microseconds) at 10,000 ops, seed 1
    ("layered", "m-etf"): (3.28, 1_516_400),
    ("wide", "m-etf"): (8.15, 1_396_307),
    ("branchy", "m-etf"): (1.07, 2_042_582),
    ("layered", "m-sct"): (7.29, 1_536_475),
    ("wide", "m-sct"): (11.6, 1_410_110),
    ("branchy", "m-sct"): (2.15, 1_953_899),
}
CLUSTER = Cluster(tuple(Device(f"dev:{k}", 1 << 50) for k in range(4)), contention="sequential")


def original(ops: int, repeats: int, seed: int = 1) -> None:
    """Print one row for each graph and placer.

    CPU seconds cover all that a placer does with a graph in memory: flat arrays, passes, the linear
    programme, list scheduling, simulation, the written plan. The original's are those of its released
    TensorFlow code on a machine of this kind (Baechi 2.2 and 2.3; HiGHS instead of Mosek), seed 1.
    """
    print(f"\n### Generated graphs of {ops:,} ops, 4 devices, transfers one at a time\n")
    print("| graph | placer | CPU s | original | times faster | makespan us | original |")
    print("|---|---|---|---|---|---|---|")
    for kind in sorted(DAG_KINDS):
        graph = dag(kind, ops, seed)
        for placer in ("m-etf", "m-sct"):
            seconds, makespan = _measure(graph, placer, repeats)
            row = f"| {kind} | {placer} | {seconds:.3f} |"
            if (ops, seed) == (10_000, 1):
                theirs, length = ORIGINAL[kind, placer]
                row += f" {theirs} | {theirs / seconds:.0f} | {makespan:,.0f} | {length:,} |"
            else:
                row += f" | | {makespan:,.0f} | |"
            print(row, flush=True)


def _measure(graph: Graph, placer: str, repeats: int) -> tuple[float, float]:
    """Median CPU seconds, and the makespan in microseconds."""
    get_placer(placer).place(graph, CLUSTER)  # compiles, and fills what a graph keeps about itself
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        plan = get_placer(placer).place(graph, CLUSTER)
        seconds.append(time.process_time() - start)
    return sorted(seconds)[repeats // 2], plan.predicted.step_seconds * 1e6
