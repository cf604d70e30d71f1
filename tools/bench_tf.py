"""The paper's TensorFlow rows: how large the graphs are, how long extraction and placement take, what a plan gains.

    python tools/bench_tf.py                          # Inception-V3 32 and 64, GNMT 40 and 50 with 128 and 256
    python tools/bench_tf.py --rows gnmt-50-256

Each row in a process of its own, on four GPUs of 8 GB, by the cost model alone. Nothing is trained, so no batch
needs its memory here. Placement is of the graph as it is, not fused: the paper's m-SCT took 406 s on GNMT-50, 22,340 ops.
Seconds are those of the processor.
"""

import argparse
import os
import subprocess
import sys
import time

ROWS = ("inception_v3-32", "inception_v3-64", "gnmt-40-128", "gnmt-40-256", "gnmt-50-128", "gnmt-50-256")
PLACERS = ("m-topo", "m-etf", "m-sct")
SPLITS = ("single", "expert")
HEAD = ("model", "nodes", "ops", "co-placed", "fused", "extraction", "rewriting", *PLACERS)
DEVICES = 4


def row(text: str, memory: str) -> None:
    """Measure one row here and print it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from dataclasses import replace

    import numpy as np

    from baechi.api import make_plan, resolve
    from baechi.backends.tf.rewrite import placed_graph
    from baechi.config import parse_cluster
    from baechi.cost.problem import Problem
    from baechi.errors import BaechiError
    from baechi.frontends.tf import capture
    from baechi.models.tf import get
    from baechi.passes import fuse
    from baechi.placers import get_placer
    from baechi.placers.variants import Variant, variants
    from baechi.placers.watch import Watch
    from baechi.units import format_seconds

    name, *numbers = text.split("-")
    spec = get(name, **({"length": int(numbers[0])} if len(numbers) > 1 else {}))
    made = spec.job(int(numbers[-1]))
    began = time.process_time()
    program = capture(made["step"], made["args"], name=name)
    extraction = time.process_time() - began
    graph = program.graph.with_ops(replace(op, expert=spec.expert(op.module, DEVICES)) for op in program.graph.ops)
    cluster = resolve(graph, parse_cluster(f"{DEVICES}xrtx2080:{memory}"))
    problem = Problem(graph, cluster)
    drawn = next((v.whole.arrays for v in variants(problem) if v.name == "co-placed"), problem.arrays)
    labels = [str(g) for g in drawn.group.tolist()]
    grouped = graph.with_ops(replace(op, group=g) for op, g in zip(graph.ops, labels, strict=True))
    fused = len(fuse(grouped, delay_seconds=float("inf")).graph)
    seconds, steps = [], []
    for placer in (*PLACERS, *SPLITS):
        one = get_placer(placer)
        solve(one, problem, Variant, Watch)  # compiled, so that nobody pays for it
        began = time.process_time()
        failed = solve(one, problem, Variant, Watch)
        seconds.append(time.process_time() - began)
        try:
            steps.append(failed or format_seconds(make_plan(one, problem, 0).predicted.step_seconds))
        except BaechiError as error:
            steps.append(f"({error.code})")
    began = time.process_time()
    plan = make_plan(get_placer("m-topo"), Problem(graph, roomy(cluster)), 0)
    began = time.process_time()
    placed_graph(program, plan, {d.name: f"/device:CPU:{k}" for k, d in enumerate(cluster.devices)})
    rewriting = time.process_time() - began
    cells = [
        text,
        f"{graph.meta['nodes']:,}",
        f"{len(graph):,}",
        f"{len(np.unique(drawn.group)):,}",
        f"{fused:,}",
        f"{extraction:.1f} s",
        f"{rewriting:.2f} s",
        *(f"{s:.3g} s: {step}" for s, step in zip(seconds, steps, strict=True)),
    ]
    print("| " + " | ".join(cells) + " |", flush=True)


def roomy(cluster):  # type: ignore[no-untyped-def]
    """The same devices without caps."""
    from dataclasses import replace

    from baechi.ir.cluster import UNLIMITED_BYTES

    return replace(cluster, devices=tuple(replace(d, memory_bytes=UNLIMITED_BYTES) for d in cluster.devices))


def solve(placer, problem, variant, watch) -> str:  # type: ignore[no-untyped-def]
    """Place the graph as it is; why not, if it cannot be."""
    from baechi.errors import BaechiError

    try:
        placer.solve(problem, (variant.plain(problem),), 0, watch(bound=0))
    except BaechiError as error:
        return f"({error.code})"
    return ""


def main() -> None:
    """Print one row for each model, length and batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--memory", default="8GB", help="of each GPU (default: 8GB)")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        row(args.here, args.memory)
        return
    print("| " + " | ".join((*HEAD, *SPLITS)) + " |\n|" + "---|" * (len(HEAD) + len(SPLITS)), flush=True)
    for name in args.rows.split(","):
        subprocess.run([sys.executable, __file__, "--here", name, "--memory", args.memory], check=True)


if __name__ == "__main__":
    main()
