"""Hold a process to the memory of its device, and say so when it asks for more.

On a CPU the kernel does it: RLIMIT_DATA, which counts what a process may write to and shares with
nobody. RLIMIT_AS would count libraries and reserved addresses as well, hundreds of megabytes that
are no memory.
"""

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baechi.errors import BaechiError
from baechi.units import format_bytes

if TYPE_CHECKING:
    import torch

__all__ = [
    "ALLOWANCE_BYTES",
    "Allocations",
    "MemoryLimit",
    "allocations",
    "explain_out_of_memory",
    "is_out_of_memory_text",
    "limit_cuda",
    "limit_memory",
]

ALLOWANCE_BYTES = 128 * 2**20
"""What a process may take beside its tensors: stacks of threads, workspaces of kernels, code compiled for them."""

_CLEAN_ALL_BUFFERS = 0  # TBBMALLOC_CLEAN_ALL_BUFFERS

_SIGNS = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "oom when allocating",
    "can't start new thread",
)


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """What a process was held to.

    Attributes:
        held_bytes: writable memory in use when the limit was set.
        cap_bytes: what it may take for tensors from then on.
        allowance_bytes: what it may take besides.
    """

    held_bytes: int
    cap_bytes: int
    allowance_bytes: int

    @property
    def total_bytes(self) -> int:
        """The limit on the process as a whole."""
        return self.held_bytes + self.cap_bytes + self.allowance_bytes


def limit_memory(cap_bytes: int, *, allowance_bytes: int = ALLOWANCE_BYTES) -> MemoryLimit | None:
    """From now on let this process take at most so many bytes of memory more than it uses at this moment.

    Call it when all is imported and connected, and before weights are made. What torch loads when
    it first trains is loaded first. Free blocks that the allocator keeps do not count as used. An
    allocation past the limit fails in the process itself, and `explain_out_of_memory` tells what
    it raises.

    Args:
        cap_bytes: for tensors.
        allowance_bytes: for everything else.

    Returns:
        The limit; None where the system cannot set one, which only Linux can.

    Raises:
        BaechiError: B616 when the process is held to less already.
    """
    if sys.platform != "linux":
        return None
    import resource

    _settle()
    free = _free_heap_bytes()
    limit = MemoryLimit(_writable_bytes() - free, cap_bytes, allowance_bytes)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard not in (resource.RLIM_INFINITY, -1) and limit.total_bytes > hard:
        raise BaechiError(
            "B616",
            f"this process may hold {format_bytes(hard)} and needs {format_bytes(limit.total_bytes)}",
            help="raise the hard limit: ulimit -Hd unlimited",
        )
    resource.setrlimit(resource.RLIMIT_DATA, (limit.total_bytes, hard))
    return limit


def _settle() -> None:
    """Train something tiny: torch loads code and makes threads and workspaces when they are first needed.

    So does its profiler. Blocks that the allocator keeps for later may fill the cap, and then a thread's stack, which
    it does not allocate, finds no room.
    """
    import torch

    random = torch.get_rng_state()
    module = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3), torch.nn.Flatten(), torch.nn.Linear(16, 4))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
    with allocations():
        module(torch.ones(1, 4, 4, 4)).sum().backward()
    optimizer.step()
    torch.set_rng_state(random)


def limit_cuda(cap_bytes: "Mapping[torch.device, int]") -> None:
    """Hold this process to so many bytes of each GPU.

    Torch's caching allocator raises `torch.OutOfMemoryError` past it. The CUDA context of the
    process is not counted. Logical devices that share a GPU share one cap: the sum of theirs.

    Args:
        cap_bytes: by CUDA device.
    """
    import torch

    for device, nbytes in cap_bytes.items():
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, nbytes / total), device)


def explain_out_of_memory(error: BaseException, device: str, cap_bytes: int | None) -> BaechiError | None:
    """One clear error for what a process raises that asked for more memory than it may have.

    Args:
        error: what was raised; the errors that led to it are looked at as well.
        device: of the plan, whose work the process did.
        cap_bytes: its cap, when it had one.

    Returns:
        B615, or None when `error` has another cause.

    Example:
        >>> explain_out_of_memory(MemoryError(), "cpu:1", 2**31).what
        "the worker of 'cpu:1' passed its cap of 2.00 GiB"
    """
    if not _is_out_of_memory(error):
        return None
    if cap_bytes is None:
        return BaechiError("B615", f"the worker of '{device}' found no more memory", help="place a smaller batch")
    return BaechiError(
        "B615",
        f"the worker of '{device}' passed its cap of {format_bytes(cap_bytes)}",
        help="place again with less memory for this device, on more devices, or a smaller batch",
    )


def is_out_of_memory_text(text: str) -> bool:
    """Whether an error message speaks of memory that was refused."""
    lower = text.lower()
    return any(sign in lower for sign in _SIGNS)


def _is_out_of_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")  # who has not loaded it got no error of it
    kinds: tuple[type[BaseException], ...] = (MemoryError, *([torch.OutOfMemoryError] if torch else []))
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        if isinstance(at, kinds) or is_out_of_memory_text(str(at)):
            return True
        at = at.__cause__ or at.__context__
    return False


def _writable_bytes() -> int:
    """What the kernel holds against RLIMIT_DATA."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


class _HeapInfo(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    )


def _free_heap_bytes() -> int:
    """What the C library's allocator holds and nobody uses, after it gave back what it can; 0 when it does not tell."""
    try:
        library = ctypes.CDLL(None)
        if hasattr(library, "scalable_allocation_command"):  # oneTBB's, where it stands in
            library.scalable_allocation_command(_CLEAN_ALL_BUFFERS, None)
        trim, ask = library.malloc_trim, library.mallinfo2
    except (AttributeError, OSError):
        return 0
    trim(0)
    ask.restype = _HeapInfo
    return int(ask().fordblks)


class Allocations:
    """What the calling thread allocated inside `allocations`.

    Attributes:
        peak_bytes: the most that was there at once of what was allocated inside.
        kept_bytes: what of it was there at the end.
        curve: (seconds since the first change, bytes) at each change.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self.kept_bytes = 0
        self.curve: tuple[tuple[float, int], ...] = ()


@contextmanager
def allocations() -> Iterator[Allocations]:
    """Follow the tensor memory that the calling thread allocates, by torch's own account; read the result after.

    Memory that was there before does not count, nor its end. What another thread frees counts
    until its place is used again.

    Example:
        >>> import torch
        >>> with allocations() as found:
        ...     _ = torch.ones(1000).sum()
        >>> 4000 <= found.peak_bytes < 4200
        True
    """
    from torch.autograd.profiler import profile

    found = Allocations()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it prints two lines for each profile otherwise
    with profile(use_kineto=False, profile_memory=True) as profiler:
        yield found
    live: dict[int, int] = {}
    now = 0
    curve: list[tuple[float, int]] = []
    events = _memory_events(profiler.kineto_results.experimental_event_tree())
    for ns, pointer, nbytes in events:
        now -= live.pop(pointer, 0)
        if nbytes > 0:
            live[pointer] = nbytes
            now += nbytes
        curve.append(((ns - events[0][0]) / 1e9, now))
    found.peak_bytes = max((nbytes for _, nbytes in curve), default=0)
    found.kept_bytes = now
    found.curve = tuple(curve)


def _memory_events(roots: list[Any]) -> list[tuple[int, int, int]]:
    """Time in nanoseconds, address and size (negative when freed) of each event on CPU memory, in their order."""
    found: list[tuple[int, int, int, int]] = []
    stack = list(reversed(roots))
    while stack:
        event = stack.pop()
        if event.name == "[memory]":
            fields = event.extra_fields
            if fields.device.type == "cpu":
                found.append((event.start_time_ns, len(found), fields.ptr, fields.alloc_size))
        else:
            stack.extend(reversed(event.children))
    return [(ns, pointer, nbytes) for ns, _, pointer, nbytes in sorted(found)]
