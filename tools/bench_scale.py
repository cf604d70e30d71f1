"""How the time to place a graph grows with it: CPU seconds, and per op times log2(ops).

    python tools/bench_scale.py --sizes 1000,10000,100000 --placers m-etf,m-sct,auto

The step is in memory. Columns: checking the ops and indexing them by name (`Graph`); then all that a placer does, from
flat arrays over passes, scheduling and simulation to the written plan. `--llama` adds the step of a Llama of 70B
parameters, extracted first, `--devices 8,64` rows for other numbers of devices.
"""

import argparse
import math
import time
from collections.abc import Callable
from typing import TypeVar

from baechi.config import parse_cluster
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.models.graphs import dag
from baechi.placers import get_placer

T = TypeVar("T")


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """CPU seconds of a call, and what it returned."""
    start = time.process_time()
    found = call()
    return time.process_time() - start, found


def cluster(devices: int) -> Cluster:
    """Equal devices with ample memory."""
    return Cluster(tuple(Device(f"dev:{k}", 1 << 50) for k in range(devices)), Link(1e-5, 1e10))


def row(name: str, graph: Graph, devices: Cluster, placer: str, built: float) -> None:
    """Place once and print the row."""
    fresh = Graph(graph.ops, graph.name, graph.meta)  # nothing kept from placing it before
    seconds, plan = timed(lambda: get_placer(placer).place(fresh, devices))
    n = len(graph)
    each = seconds / (n * math.log2(n)) * 1e9
    step, gap = plan.predicted.step_seconds, plan.gap
    print(
        f"| {name} | {n:,} | {len(devices)} | {placer} | {built:.2f} | {seconds:.2f} | {each:.0f} | {step:.4g} s | {gap:.1%} |",
        flush=True,
    )


def main() -> None:
    """Print one row for each graph and placer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000,100000,1000000")
    parser.add_argument("--kinds", default="layered")
    parser.add_argument("--placers", default="m-etf,m-sct,auto")
    parser.add_argument("--devices", default="8")
    parser.add_argument("--llama", action="store_true")
    parser.add_argument("--memory", default="1TiB", help="of each device of the Llama's")
    args = parser.parse_args()
    placers, numbers = args.placers.split(","), [int(number) for number in args.devices.split(",")]
    for placer in placers:  # compiles
        get_placer(placer).place(dag("layered", 200, 1), cluster(2))
    print("| graph | ops | devices | placer | Graph s | CPU s | ns / (n log2 n) | step | gap |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for kind in args.kinds.split(","):
        for n in map(int, filter(None, args.sizes.split(","))):
            ops = dag(kind, n, 1).ops
            built, graph = timed(lambda ops=ops: Graph(ops))
            for devices in numbers:
                for placer in placers:
                    row(kind, graph, cluster(devices), placer, built)
    if args.llama:
        from _bench_steps import language_step

        for placer in placers:  # compiles what only a training step needs
            get_placer(placer).place(language_step("llama-70b", layers=1).graph, cluster(2))
        step = language_step("llama-70b").graph
        built, graph = timed(lambda: Graph(step.ops, step.name, step.meta))
        for devices in numbers:
            for placer in placers:
                row("llama-70b", graph, parse_cluster(f"{devices}x{args.memory}"), placer, built)


if __name__ == "__main__":
    main()
