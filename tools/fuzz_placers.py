"""Place many random DAGs under ever smaller caps and count: solved, proved impossible, not found, over a cap.

    python tools/fuzz_placers.py --dags 125

Every cell has DAGs of its own: 125 in each of eight cells are 1,000 for each placer.
Below stands the original's table: 45 DAGs of 60 ops on 4 devices, run unmodified. There "over" is a plan
that its placer accepted and its own simulator shows to be over a cap, "assert" a bare AssertionError.
Here any plan over a cap by the simulator, or refused by the verifier, counts as "over".
"""

import argparse
from collections import Counter
from dataclasses import replace

from baechi.cost import Problem
from baechi.errors import Infeasible
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.verify import verify
from baechi.models.graphs import random_dag
from baechi.placers import Single, get_placer
from baechi.sim import simulate

FRACTIONS = (1.0, 0.6, 0.4, 0.34)
DEVICES = 4

ORIGINAL = """| m_topo (default, uniform) | free | 45 ok | 41 ok, 4 over | 11 ok, 34 over | 2 ok, 43 over |
| m_etf | free | 45 ok | 43 ok, 2 over | 37 ok, 6 over, 2 assert | 27 ok, 10 over, 8 assert |
| m_sct | free | 45 ok | 44 ok, 1 over | 31 ok, 11 over, 3 assert | 25 ok, 14 over, 6 assert |
| m_etf | random | 45 ok | 31 ok, 2 over, 12 assert | 8 ok, 2 over, 35 assert | 2 ok, 2 over, 41 assert |
| m_sct | random | 45 ok | 32 ok, 3 over, 10 assert | 10 ok, 1 over, 34 assert | 3 ok, 2 over, 40 assert |"""


def outcome(graph: Graph, cluster: Cluster, placer: str) -> str:
    """One of ok, over, proved, not found."""
    try:
        plan = get_placer(placer).place(graph, cluster)
    except Infeasible as error:
        return "proved" if error.proved else "not found"
    peaks = simulate(Problem(graph, cluster), plan).peak_bytes
    over = any(peaks[d.name] > d.cap for d in cluster.devices)
    return "over" if over or verify(graph, plan) else "ok"


def single_peak(graph: Graph, cluster: Cluster) -> int:
    """Memory that the step takes on one device."""
    one = replace(cluster, devices=(Device("one", 1 << 50),))
    return Single().place(graph, one).predicted.peak_bytes["one"]


def main() -> None:
    """Print one row for each placer, with and without colocation groups."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dags", type=int, default=45, help="random DAGs for each cell")
    parser.add_argument("--ops", type=int, default=60)
    parser.add_argument("--placers", default="m-topo,m-etf,m-sct,auto")
    args = parser.parse_args()
    print("| placer | groups | " + " | ".join(f"f={f}" for f in FRACTIONS) + " |")
    print("|---|---|" + "---|" * len(FRACTIONS))
    for groups in (False, True):
        open_cluster = Cluster(tuple(Device(f"d{k}", 1 << 50) for k in range(DEVICES)), Link(1e-6, 1e9))
        for placer in args.placers.split(","):
            cells = []
            for column, fraction in enumerate(FRACTIONS):
                counts: Counter[str] = Counter()
                for seed in range(column * args.dags, (column + 1) * args.dags):
                    graph = random_dag(seed, args.ops, groups=groups)
                    memory = max(1, int(single_peak(graph, open_cluster) * fraction))
                    devices = tuple(replace(d, memory_bytes=memory) for d in open_cluster.devices)
                    counts[outcome(graph, replace(open_cluster, devices=devices), placer)] += 1
                cells.append(", ".join(f"{count} {what}" for what, count in sorted(counts.items(), reverse=True)))
            print(f"| {placer} | {'random' if groups else 'free'} | " + " | ".join(cells) + " |", flush=True)
    print("\nThe original:\n" + ORIGINAL)


if __name__ == "__main__":
    main()
