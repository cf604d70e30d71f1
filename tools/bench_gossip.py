"""The age simulator: a million peers for ten gossip rounds, and the law of staleness beside what it measures.

python tools/bench_gossip.py
python tools/bench_gossip.py --peers 1000000 --rounds 10 --dimension 8
python tools/bench_gossip.py --laws 8,32,128,512,2048,4096
"""

import argparse
import resource
import time

from baechi.replicas.age_model import AgeModel, staleness_law, transient_law
from baechi.replicas.ages import simulate_ages
from baechi.replicas.sweep import POLICIES, sweep
from baechi.replicas.topology import parse_topology


def peak_gigabytes() -> float:
    """Of this process, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def race(peers: int, rounds: float, topology: str, mixing: str, dimension: int, sources: int | None) -> None:
    """Print one row: compiled before, wall seconds of graph and simulation."""
    simulate_ages(AgeModel(parse_topology(topology, 64), mixing=mixing), 1.0, dimension=dimension)
    start = time.perf_counter()
    model = AgeModel(parse_topology(topology, peers), mixing=mixing)
    built = time.perf_counter() - start
    found = simulate_ages(model, rounds, warmup=0.0, intervals=4, sources=sources, dimension=dimension)
    seconds = time.perf_counter() - start
    law = transient_law(model, rounds)
    beside = f"{found.staleness_at_end:.2f} / {law:.2f}" if law is not None else f"{found.staleness_at_end:.2f}"
    spread = f"{found.disagreement[-1]:.2e}" if dimension else ""
    print(
        f"| {peers:,} | {rounds:g} | {topology} | {mixing} | {dimension} | {len(found.sources)} | {found.exchanges:,} "
        f"| {built:.1f} | {seconds:.1f} | {peak_gigabytes():.2f} | {beside} | {spread} |",
        flush=True,
    )


def laws(peers: list[int], exchanges: int) -> None:
    """Print measured staleness and the law for each number of peers and policy."""
    print("\n| peers | " + " | ".join(f"{policy}: simulated | law | off" for policy in POLICIES) + " |")
    print("|---|" + "---|" * 3 * len(POLICIES))
    points = {(p.policy, p.peers): p for p in sweep(peers, exchanges=exchanges)}
    for n in peers:
        row = [points[policy, n] for policy in POLICIES]
        print(
            f"| {n:,} | "
            + " | ".join(f"{p.staleness:.3f} | {p.law:.3f} | {p.staleness / p.law - 1:+.1%}" for p in row)
            + " |"
        )
    print("\n| peers | shifted exponential, c = 0.5: simulated | law | off |")
    print("|---|---|---|---|")
    for n in peers:
        model = AgeModel(parse_topology("complete", n), compute_offset=0.5)
        found = simulate_ages(model, max(100.0, exchanges / n))
        law = staleness_law(model) or 1.0
        print(f"| {n:,} | {found.mean_staleness:.3f} | {law:.3f} | {found.mean_staleness / law - 1:+.1%} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=float, default=10.0)
    parser.add_argument("--dimension", type=int, default=4)
    parser.add_argument("--sources", type=int)
    parser.add_argument("--laws", default="8,32,128,512,2048,4096")
    parser.add_argument("--exchanges", type=int, default=400_000)
    args = parser.parse_args()
    print(
        "| peers | rounds | topology | mixing | values | sources | exchanges | graph s | all s | peak GB "
        "| staleness at the end / law | disagreement |"
    )
    print("|---" * 12 + "|")
    for topology, mixing, dimension in (
        ("complete", "pull", 0),
        ("complete", "symmetric", args.dimension),
        ("complete", "push-sum", args.dimension),
        ("exponential", "pull", args.dimension),
        ("torus", "symmetric", args.dimension),
        ("random-regular:4", "symmetric", args.dimension),
    ):
        race(args.peers, args.rounds, topology, mixing, dimension, args.sources)
    laws([int(n) for n in args.laws.split(",")], args.exchanges)


if __name__ == "__main__":
    main()
