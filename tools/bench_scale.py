"""How the time to place a graph grows with it: CPU seconds, and per op times log2(ops).

    python tools/bench_scale.py --sizes 1000,10000,100000 --placers m-etf,m-sct,auto

The step is in memory. Columns: checking the ops and indexing them by name (`Graph`); then all that a placer does, from
flat arrays over passes, scheduling and simulation to the written plan. `--llama` adds the step of a Llama of 70B
parameters, extracted first, `--devices` another number of devices.
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


def llama(layers: int = 80) -> Graph:
    """The training step of a Llama, with 80 layers of 70B parameters; neither weights nor a device are needed."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from baechi.frontends.pytorch import build_meta, capture

    config = LlamaConfig(
        hidden_size=8192,
        num_hidden_layers=layers,
        num_attention_heads=64,
        num_key_value_heads=8,
        intermediate_size=28672,
        vocab_size=128256,
        max_position_embeddings=4096,
        use_cache=False,
    )
    ids = torch.zeros(1, 4096, dtype=torch.int64)
    model = build_meta(lambda: AutoModelForCausalLM.from_config(config))
    return capture(model, (ids,), {"labels": ids}, loss="output", optimizer="adamw", name="llama-70b").graph


def main() -> None:
    """Print one row for each graph and placer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000,100000,1000000")
    parser.add_argument("--kinds", default="layered")
    parser.add_argument("--placers", default="m-etf,m-sct,auto")
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--llama", action="store_true")
    args = parser.parse_args()
    placers = args.placers.split(",")
    for placer in placers:  # compiles
        get_placer(placer).place(dag("layered", 200, 1), cluster(2))
    print("| graph | ops | devices | placer | Graph s | CPU s | ns / (n log2 n) | step | gap |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for kind in args.kinds.split(","):
        for n in map(int, filter(None, args.sizes.split(","))):
            ops = dag(kind, n, 1).ops
            built, graph = timed(lambda ops=ops: Graph(ops))
            for placer in placers:
                row(kind, graph, cluster(args.devices), placer, built)
    if args.llama:
        for placer in placers:  # compiles what only a training step needs
            get_placer(placer).place(llama(1), cluster(2))
        step = llama()
        built, graph = timed(lambda: Graph(step.ops, step.name, step.meta))
        for placer in placers:
            row("llama-70b", graph, parse_cluster(f"{args.devices}x1TiB"), placer, built)


if __name__ == "__main__":
    main()
