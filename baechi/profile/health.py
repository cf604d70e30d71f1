"""Whether what baechi needs is here and works."""

import importlib.metadata
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from baechi.config import cores
from baechi.profile.machine import cache_directory, tuned_environment

__all__ = ["Finding", "examine"]

_LEAST_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        good: whether it is as it should be; None when nothing depends on it.
        found: what was found.
        help: what to do about it.
    """

    name: str
    good: bool | None
    found: str
    help: str = ""


def examine() -> tuple[Finding, ...]:
    """Look at everything that a command may need."""
    return (
        _python(),
        *(_package(name, needed) for name, needed in (("networkx", True), ("numba", True), ("ortools", True))),
        _package("torch", False),
        _package("tensorflow", False),
        _try("kernels", _kernels, "clear the __pycache__ folders of baechi/sim and placers"),
        _try("solver", _solver, "install ortools again"),
        _machine(),
        _cuda(),
        _cache(),
        _allocator(),
        _reuse(),
    )


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", sys.version_info >= _LEAST_PYTHON, found, "3.11 or later is needed")


def _package(name: str, needed: bool) -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False if needed else None, "not installed", f"pip install {name}")


def _try(name: str, work: Callable[[], str], help: str) -> Finding:
    try:
        return Finding(name, True, work())
    except Exception as error:  # noqa: BLE001 - whatever is broken is the finding
        return Finding(name, False, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", help)


def _kernels() -> str:
    from baechi.profile.kernels import compile_all

    return f"compiled and right, {compile_all():.1f} s of processor time"


def _solver() -> str:
    import numpy as np

    from baechi.placers.apart import call_solver

    one, place = np.ones(1), np.zeros(1, np.int64)
    found = call_solver(
        "baechi.placers._glop:minimize", 0 * one, np.inf * one, one, 3 * one, np.inf * one, (place, place, one)
    )
    if found is None or abs(found[0] - 3) > 1e-6:
        raise RuntimeError(f"the least x of at least 3 is {found}")
    return "ortools solves a linear programme"


def _machine() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    free = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    return Finding("machine", True, f"{cores()} cores, {free}")


def _cuda() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("cuda", None, "torch is not installed")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("cuda", True if names else None, ", ".join(names) or "no device: plans run on the processor")


def _cache() -> Finding:
    folder = cache_directory()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        help = "set BAECHI_CACHE to a folder that can be written; measurements are not kept otherwise"
        return Finding("cache", False, f"{_short(folder)}: {error.strerror or error}", help)
    return Finding("cache", True, _short(folder))


def _allocator() -> Finding:
    missing = tuned_environment()
    if not missing:
        return Finding("allocator", True, "keeps its memory between steps")
    return Finding("allocator", None, f"{len(missing)} variables are not set; run sets them for itself")


def _reuse() -> Finding:
    from baechi.backends.heap import reusing_libraries

    if reusing_libraries():
        return Finding("tight caps", True, "workers reuse their memory by oneTBB's allocator")
    return Finding("tight caps", None, "workers take new pages for every large block; pip install 'baechi[heap]'")


def _short(path: Path) -> str:
    return str(path).replace(str(Path.home()), "~", 1)
