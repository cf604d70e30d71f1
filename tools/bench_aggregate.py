"""Time the aggregation rules beside torch's own median and sort, and ByzFL's rules.

ByzFL need not be installed whole: its wheel unpacked, without dependencies, into a folder will do.

Example: OMP_NUM_THREADS=2 python tools/bench_aggregate.py --peers 20 --size 10_000_000 --byzfl /tmp/unpacked
"""

import argparse
import importlib
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from unittest.mock import MagicMock

import torch
from torch import Tensor

from baechi.replicas.rules import aggregate

_COORDINATE = ("mean", "median", "mean-around-median", "trimmed-mean", "phocas")
_GLOBAL = ("krum", "multi-krum", "geometric-median", "centered-clipping")
_BYZFL = {"Median": False, "TrMean": True, "Meamed": True, "Krum": True, "MultiKrum": True, "GeometricMedian": False}
"""ByzFL's rules, and whether they take f."""


class Line(NamedTuple):
    """One row of the table: seconds of wall clock and of processors, and what the memory grew by in bytes."""

    name: str
    seconds: float
    cpu_seconds: float
    nbytes: int


def measured(name: str, call: Callable[[], object], repeats: int) -> Line:
    """The fastest of some calls."""
    found = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        found.append((time.perf_counter() - wall, time.process_time() - cpu))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return Line(name, *min(found), grown * 1024)


def lines(X: Tensor, hostile: int, repeats: int, unpacked: str | None) -> Iterator[Line]:
    """Each rule, then torch, then ByzFL: the peak of memory only grows, and ours are first."""
    for rule in (*_COORDINATE, *_GLOBAL):
        yield measured(rule, lambda rule=rule: aggregate(rule, X, f=hostile), repeats)  # type: ignore[misc]
    yield measured("torch.median", lambda: X.median(0), repeats)
    yield measured("torch.sort", lambda: X.sort(0), repeats)
    if unpacked is None:
        return
    sys.path.insert(0, unpacked)
    for unused in ("torchvision", "torchvision.datasets", "torchvision.transforms", "seaborn"):
        sys.modules[unused] = MagicMock()
    byzfl = importlib.import_module("byzfl")
    for name, takes in _BYZFL.items():
        rule = getattr(byzfl, name)(**({"f": hostile} if takes else {}))
        yield measured(f"byzfl.{name}", lambda rule=rule: rule(X), repeats)  # type: ignore[misc]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--peers", type=int, default=20)
    parser.add_argument("--size", type=int, default=10_000_000)
    parser.add_argument("--hostile", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--byzfl", metavar="FOLDER", help="where its wheel is unpacked")
    args = parser.parse_args(argv)
    X = torch.randn(args.peers, args.size, generator=torch.Generator().manual_seed(0)).to(args.device)
    print(f"{args.peers} x {args.size} float32 on {args.device}, {torch.get_num_threads()} threads")
    print(f"{'':24s} {'seconds':>9s} {'cpu s':>9s} {'peak grew by, MB':>17s}")
    for line in lines(X, args.hostile, args.repeats, args.byzfl):
        print(f"{line.name:24s} {line.seconds:9.3f} {line.cpu_seconds:9.3f} {line.nbytes / 1e6:17.0f}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
