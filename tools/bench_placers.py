"""Every placer of ours beside other people's, on the same graphs, judged by the same simulator.

    pip install 'baechi[torch,bench]'
    python tools/bench_placers.py                     # everything, half an hour
    python tools/bench_placers.py --quick             # small graphs, less than a minute
    python tools/bench_placers.py --section workloads # one of them

A cell is the objective in milliseconds, how far it is above the best proved lower bound, and CPU seconds.

workloads  the graphs of the dnn-partitioning repository: latency, throughput, memory caps
models     the paper's models on four GPUs of 8 GB and of 30 % of what one device needs
synthetic  generated graphs
stg        task graphs of the Standard Task Graph kinds, whose optima are proved
exact      how near to a proved bound `exact` comes on graphs of 60 ops in a minute each
original   m-ETF and m-SCT beside the figures of the original's released code
scale      seconds by the number of ops
"""

import argparse
import math
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from _bench_exact import exact_table
from _bench_models import accelerate_methods, model_cases
from _bench_original import original
from _bench_peers import peers
from _bench_stg import stg_table
from _bench_table import Case, Method, ours, run, warm_up, with_caps

from baechi.cost.problem import Problem
from baechi.errors import BaechiError
from baechi.frontends.workload import read_expert, read_target, with_expert
from baechi.ir.cluster import UNLIMITED_BYTES, Cluster, Device, Link
from baechi.models.graphs import dag
from baechi.placers import PLACERS, Auto, Heft, Metis, get_placer

SECTIONS = ("workloads", "models", "synthetic", "stg", "exact", "original", "scale")
WORKLOADS = {
    "BERT-3 operators": "bert_l-3_training_operator",
    "ResNet-50 operators": "resnet50_training_operator",
    "Inception-V3 layers": "inceptionv3_training_layer",
    "GNMT layers": "gnmt_training_layer",
}


def methods(only: str | None = None) -> Iterator[Method]:
    """Our placers, those named or all but the exact one, which takes its time; HEFT once for each of its ranks."""
    for name in only.split(",") if only else (name for name in PLACERS if name != "exact"):
        if name == "metis" and not Metis.available():
            continue
        yield ours(name, get_placer(name))
        if name == "heft":
            yield ours("heft, peft", Heft("peft"))
            yield ours("heft, cpop", Heft("cpop"))


def workloads(folder: Path, rows: list[Method], theirs: list[Method], quick: bool) -> None:
    """The four graphs in six settings."""
    if not folder.is_dir():
        print(f"no {folder}: the section 'workloads' is left out", file=sys.stderr)
        return
    names = list(WORKLOADS)[: 1 if quick else 4]
    kept = [_workload(folder, name, ignore=False) for name in names]
    free = [_workload(folder, name, ignore=True) for name in names]
    run("Latency, colour classes together", kept, [*rows, *theirs])
    ample = [Case(c.name, _ample(c.problem)) for c in free]
    run("Latency, colour classes ignored, memory unlimited", ample, [*rows, *theirs])
    if quick:
        return
    for factor in (1.3, 1.1):
        capped = [Case(c.name, with_caps(c.problem, factor)) for c in free]
        run(f"Latency, colour classes ignored, {factor} x the average memory", capped, [*rows, *theirs])
    with_cpu = [_workload(folder, name, ignore=False, cpus=1) for name in names]
    for more, cases in (("", kept), (", with the file's CPU", with_cpu)):
        loads = [Case(c.name, Problem(c.problem.graph, c.problem.cluster, objective="throughput")) for c in cases]
        run(f"Throughput: the highest load, colour classes together{more}", loads, [*rows, *theirs])


def _workload(folder: Path, name: str, *, ignore: bool, cpus: int = 0) -> Case:
    graph, defaults = read_target(folder / f"{WORKLOADS[name]}.json", ignore_colocation=ignore, cpus=cpus)
    expert = folder / f"{WORKLOADS[name]}.expert.json"
    if expert.exists():
        graph = with_expert(graph, read_expert(expert))
    if defaults.cluster is None:
        raise BaechiError("B105", f"{name} names no devices")
    return Case(f"{name} ({len(defaults.cluster)})", Problem(graph, defaults.cluster))


def _ample(problem: Problem) -> Problem:
    devices = tuple(replace(d, memory_bytes=UNLIMITED_BYTES) for d in problem.cluster.devices)
    return Problem(problem.graph, replace(problem.cluster, devices=devices))


def synthetic(ops: int, rows: list[Method]) -> None:
    """Generated graphs on four devices, with ample memory and with little."""
    for fraction in (1.0, 0.3):
        cases = []
        for kind in ("layered", "wide", "branchy"):
            graph = dag(kind, ops, 1)
            one = Cluster((Device("one", UNLIMITED_BYTES),))
            peak = get_placer("single").place(graph, one).predicted.peak_bytes["one"]
            devices = tuple(Device(f"dev:{k}", int(peak * fraction)) for k in range(4))
            cases.append(Case(kind, Problem(graph, Cluster(devices, Link(1e-5, 1e10), contention="duplex"))))
        run(f"Generated graphs of {ops:,} ops, 4 devices of {fraction:.0%} of what one needs", cases, rows)


def scale(sizes: list[int], devices: int, rows: list[Method]) -> None:
    """CPU seconds by size, and what is left of them when n log n is divided out."""
    cluster = Cluster(tuple(Device(f"dev:{k}", UNLIMITED_BYTES) for k in range(devices)), contention="parallel")
    print(f"\n### CPU seconds (and nanoseconds for each n log2 n), layered graphs, {devices} devices\n")
    print("| placer | " + " | ".join(f"{n:,} ops" for n in sizes) + " |\n|---|" + "---|" * len(sizes))
    problems = [Problem(dag("layered", n, 1), cluster) for n in sizes]
    for method in rows:
        shown = []
        for n, problem in zip(sizes, problems, strict=True):
            _ = problem.arrays
            seconds = method.solve(problem)[1]
            shown.append(f"{seconds:.3g} s ({seconds / (n * math.log2(n)) * 1e9:.0f})")
        print(f"| {method.name} | " + " | ".join(shown) + " |", flush=True)


def _models(args: argparse.Namespace, rows: list[Method], theirs: list[Method]) -> None:
    warnings.simplefilter("ignore")
    if not args.quick:
        names = args.models.split(",")
        cases = list(model_cases(names, ["8GB", "30%"], args.batch, args.cache))
        run("The paper's models, 4 GPUs", cases, [*rows, *accelerate_methods(), *theirs])


def main() -> None:
    """Print the tables."""
    here = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", action="append", choices=SECTIONS)
    parser.add_argument("--quick", action="store_true", help="small graphs, few peers")
    parser.add_argument("--placers", metavar="A,B", help="of ours (default: all)")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--peer-ops", type=int, default=2500, help="largest graph that saga is given")
    parser.add_argument("--workloads", type=Path, default=here.parent / "shared" / "workloads")
    parser.add_argument("--models", default="inception_v3,gnmt,transformer")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--cache", type=Path, help="folder that keeps captured graphs")
    parser.add_argument("--most-ops", type=int, default=1_000_000, help="largest graph of the section 'scale'")
    args = parser.parse_args()
    chosen = args.section or SECTIONS
    fast = None if not args.quick else "single,m-etf,heft,metis"
    rows = list(methods(args.placers or fast))
    theirs = [] if args.no_peers else list(peers(700 if args.quick else args.peer_ops))
    warm_up(rows)
    if "workloads" in chosen:
        workloads(args.workloads, rows, theirs, args.quick)
    if "models" in chosen:
        _models(args, rows, theirs)
    if "synthetic" in chosen:
        synthetic(150 if args.quick else 5000, [row for row in rows if row.name != "expert"])
    if "stg" in chosen:
        asked = args.placers or ("m-etf,heft" if args.quick else "m-etf,m-sct,heft,auto")
        tried = [*methods(asked), *([ours("auto, 10 s", Auto(budget=10.0))] if "auto" in asked else [])]
        stg_table([20] if args.quick else [50, 100], 12 if args.quick else 48, 20.0, tried)
    if "exact" in chosen:
        exact_table(12 if args.quick else 60, 5.0 if args.quick else 60.0, 1)
    if "original" in chosen:
        original(1000 if args.quick else 10_000, 1 if args.quick else 5)
    if "scale" in chosen:
        sizes = [n for n in (1000, 10_000, 100_000, 1_000_000) if n <= (10_000 if args.quick else args.most_ops)]
        asked = args.placers or ("m-etf,heft" if args.quick else "m-etf,heft,auto")
        scale(sizes, 8, list(methods(asked)))


if __name__ == "__main__":
    main()
