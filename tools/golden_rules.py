"""Write tests/golden/rules.json: what ByzFL's and Flower's aggregation rules make of 400 random rounds.

Their packages need not be installed whole: unpack the two wheels into one folder, without dependencies.

Example: python tools/golden_rules.py /tmp/unpacked tests/golden/rules.json
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
from numpy.typing import NDArray

CASES = 400
_UNUSED = ("flwr", "flwr.common", "flwr.server", "flwr.server.client_proxy", "seaborn")
_UNUSED += ("torchvision", "torchvision.datasets", "torchvision.transforms")


def round_of(seed: int) -> tuple[NDArray[np.float64], int]:
    """Vectors (m, d) and how many may be hostile, of a case: 2 f + 2 < m, as Krum needs."""
    random = np.random.default_rng(seed)
    m, d = int(random.integers(5, 26)), int(random.integers(1, 21))
    f = int(random.integers(0, (m - 3) // 2 + 1))
    X = random.standard_normal((m, d)) + random.standard_normal(d)
    X[:f] *= 10.0 ** random.uniform(-1, 3)
    return X, f


def digest(y: NDArray[np.float64]) -> float:
    """One number that tells vectors apart."""
    return float(y @ np.cos(np.arange(1.0, len(y) + 1.0)))


def theirs(unpacked: Path) -> dict[str, Callable[[NDArray[np.float64], int], NDArray[np.float64]]]:
    """The other projects' rules; Krum is Flower's, as ByzFL's counts n - f - 1 neighbours and not n - f - 2."""
    for name in _UNUSED:
        sys.modules[name] = MagicMock()
    byzfl = importlib.import_module("byzfl")
    path = unpacked / "flwr" / "server" / "strategy" / "aggregate.py"
    flower = SourceFileLoader("flower_aggregate", str(path)).load_module()

    def krum(X: NDArray[np.float64], f: int, keep: int) -> NDArray[np.float64]:
        found: NDArray[np.float64] = flower.aggregate_krum([([x], 1) for x in X], f, keep)[0]
        return found

    return {
        "trimmed-mean": lambda X, f: byzfl.TrMean(f=f)(X),
        "median": lambda X, f: byzfl.Median()(X),
        "mean-around-median": lambda X, f: byzfl.Meamed(f=f)(X),
        "krum": lambda X, f: krum(X, f, 0),
        "multi-krum": lambda X, f: krum(X, f, len(X) - f),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("unpacked", help="the folder with byzfl and flwr")
    parser.add_argument("output")
    args = parser.parse_args(argv)
    sys.path.insert(0, args.unpacked)
    rules = theirs(Path(args.unpacked))
    found: dict[str, Any] = {"made by": "python tools/golden_rules.py UNPACKED tests/golden/rules.json"}
    for name, rule in rules.items():
        found[name] = [float(f"{digest(np.asarray(rule(*round_of(seed)))):.13g}") for seed in range(CASES)]
    Path(args.output).write_text(json.dumps(found, indent=None, separators=(",", ":")) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
