"""Time and memory of extracting a training step, each model in a process of its own.

    python tools/bench_extract.py

Models of transformers are built from a config; no weights are loaded or made.
"""

import argparse
import importlib
import resource
import subprocess
import sys
import time

MODELS = ("inception_v3", "gpt2", "llama-70b", "transformer", "gnmt")


def extract(name: str) -> None:
    """Extract one model here and print a row; imports are no part of the extraction."""
    from baechi.models.base import names

    if name in names():
        from baechi.target import load_target

        importlib.import_module("baechi.frontends.pytorch")
        target = load_target(f"models:{name}")
        start = time.perf_counter()
        program = target.program
    else:
        from _bench_steps import language_step

        start = time.perf_counter()
        program = language_step(name)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    work = sum(1 for op in program.graph.ops if op.kind not in ("parameter", "buffer", "input", "constant", "tangent"))
    print(f"| {name} | {len(program.graph):,} | {work:,} | {seconds:.1f} s | {peak / 1e6:.0f} MB |", flush=True)


def main() -> None:
    """Print one row for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--here", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        extract(args.here)
        return
    print("| model | ops | without inputs and weights | extraction | peak memory of the process |")
    print("|---|---|---|---|---|", flush=True)
    for name in args.models.split(","):
        subprocess.run([sys.executable, __file__, "--here", name], check=True)


if __name__ == "__main__":
    main()
