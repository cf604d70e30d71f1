"""Keep other cores as busy as a training step keeps them, so that what is measured shares memory and caches.

Each process multiplies matrices and streams through memory in turns, on one thread, until it is told to stop.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

__all__ = ["busy_neighbours", "main", "neighbours_of"]

_SIDE = 768
_STREAM_BYTES = 64 * 2**20
_STREAM_SHARE = 0.5
"""Of the time: a convolutional net's share of batch norms, activations, pooling and updates."""


def neighbours_of(devices: int, cores: int) -> int:
    """How many others compute while one of so many devices does.

    Example:
        >>> neighbours_of(2, 8), neighbours_of(4, 2), neighbours_of(1, 8)
        (1, 1, 0)
    """
    return max(0, min(devices, cores) - 1)


@contextmanager
def busy_neighbours(count: int) -> Iterator[None]:
    """Let `count` processes be busy, each on one thread, from when all have begun to the end of the block."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        for _ in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout is not None  # it is a pipe
            process.stdout.readline()
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def main() -> None:
    """Say that it begins, then work until killed, or until whoever started it is gone."""
    parent = os.getppid()
    generator = np.random.default_rng(0)
    a, b = generator.random((2, _SIDE, _SIDE), dtype=np.float32)
    product = np.empty_like(a)
    source = generator.random(_STREAM_BYTES // 4, dtype=np.float32)
    sink = np.empty_like(source)
    spent = [0.0, 0.0]
    print("busy", flush=True)
    while os.getppid() == parent:
        streams = spent[1] <= _STREAM_SHARE * sum(spent)
        start = time.perf_counter()
        if streams:
            np.multiply(source, np.float32(2), out=sink)
        else:
            np.matmul(a, b, out=product)
        spent[streams] += time.perf_counter() - start


if __name__ == "__main__":
    main()
