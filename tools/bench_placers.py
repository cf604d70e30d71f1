"""m-ETF and m-SCT beside the original's figures, on the same generated graphs.

    python tools/bench_placers.py --seeds 1,2

CPU seconds cover all that a placer does with a graph in memory: flat arrays, passes, the linear
programme, list scheduling, simulation, the written plan. The original's are those of its released
TensorFlow code on a machine of this kind (Baechi 2.2 and 2.3; HiGHS instead of Mosek), seed 1.
"""

import argparse
import time

from baechi.ir.cluster import Cluster, Device
from baechi.ir.graph import Graph
from baechi.models.graphs import dag
from baechi.placers import get_placer

ORIGINAL = {  # (CPU seconds, makespan in microseconds) at 10,000 ops, seed 1
    ("layered", "m-etf"): (3.28, 1_516_400),
    ("wide", "m-etf"): (8.15, 1_396_307),
    ("branchy", "m-etf"): (1.07, 2_042_582),
    ("layered", "m-sct"): (7.29, 1_536_475),
    ("wide", "m-sct"): (11.6, 1_410_110),
    ("branchy", "m-sct"): (2.15, 1_953_899),
}
CLUSTER = Cluster(tuple(Device(f"dev:{k}", 1 << 50) for k in range(4)), contention="sequential")


def measure(graph: Graph, placer: str, repeats: int) -> tuple[float, float]:
    """Median CPU seconds, and the makespan in microseconds."""
    get_placer(placer).place(graph, CLUSTER)  # compiles, and fills what a graph keeps about itself
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        plan = get_placer(placer).place(graph, CLUSTER)
        seconds.append(time.process_time() - start)
    return sorted(seconds)[repeats // 2], plan.predicted.step_seconds * 1e6


def main() -> None:
    """Print one row for each graph and placer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", type=int, default=10_000)
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    print("| graph | seed | placer | CPU s | original | times faster | makespan us | original |")
    print("|---|---|---|---|---|---|---|---|")
    for seed in map(int, args.seeds.split(",")):
        for kind in ("layered", "wide", "branchy"):
            graph = dag(kind, args.ops, seed)
            for placer in ("m-etf", "m-sct"):
                seconds, makespan = measure(graph, placer, args.repeats)
                row = f"| {kind} | {seed} | {placer} | {seconds:.3f} |"
                if (args.ops, seed) == (10_000, 1):
                    theirs, length = ORIGINAL[kind, placer]
                    row += f" {theirs} | {theirs / seconds:.0f} | {makespan:,.0f} | {length:,} |"
                else:
                    row += f" | | {makespan:,.0f} | |"
                print(row, flush=True)


if __name__ == "__main__":
    main()
