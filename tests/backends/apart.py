"""Processes of a test, and how they end."""

import multiprocessing as mp
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def exit_codes(
    work: Callable[..., None], each: Iterable[tuple[Any, ...]], preload: Sequence[str], seconds: float = 120
) -> list[int | None]:
    """Run `work` in a process for each of these arguments; None for one that had to be killed."""
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    processes = [context.Process(target=work, args=args) for args in each]
    for process in processes:
        process.start()
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes
