"""Time m-SCT's linear programme: the rows that prove the optimum, beside all of them at once.

Example: python tools/bench_lp.py --ops 1000 --seed 1
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from baechi.placers import relax
from baechi.units import TICKS_PER_SECOND

Ints = NDArray[np.int64]


def layered(ops: int, width: int, seed: int) -> tuple[Ints, Ints, Ints, Ints]:
    """A random graph in layers of 1 to 2 x `width` ops, each with 1 to 3 inputs from the three layers before.

    Returns:
        ticks (ops,), and (edges,) each of tails, heads and communication in ticks.
    """
    random = np.random.default_rng(seed)
    first, last, edges = 0, [0, 0, 0], []
    while first < ops:
        following = min(ops, first + int(random.integers(1, 2 * width + 1)))
        for j in range(first, following):
            count = min(first - last[0], int(random.integers(1, 4)))
            edges += [(last[0] + int(i), j) for i in random.choice(max(1, first - last[0]), count, replace=False)]
        last = [*last[1:], first]
        first = following
    src, dst = np.array(edges, np.int64).reshape(-1, 2).T
    ticks = random.lognormal(18.8, 1.2, ops).astype(np.int64)
    comm = (random.lognormal(17.7, 1.5, ops).astype(np.int64) + 134_000_000)[src]
    return ticks, src, dst, comm


def seconds(call: Callable[[], relax.Favourites]) -> tuple[float, relax.Favourites]:
    """Processor seconds of one call, and what it returned."""
    begin = time.process_time()
    found = call()
    return time.process_time() - begin, found


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line for each way to solve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ops", type=int, default=3000)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    relax.favourites(*layered(50, 4, 0))
    dag = layered(args.ops, args.width, args.seed)
    print(f"{args.ops} ops, {len(dag[1])} edges")
    edges = len(dag[1])
    for name, rows in (("a part that grows", 2000), ("all rows at once", edges)):
        took, found = seconds(partial(relax.favourites, *dag, limit=edges, first_rows=rows))
        print(f"{name:18}{took:9.3f} s   w = {found.bound / TICKS_PER_SECOND:.9f} s   gap {found.gap:.1e}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
