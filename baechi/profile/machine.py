"""Measure what this machine's CPU can do, once, and keep it.

Nothing here imports a framework until something is measured.
"""

import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from baechi.config import cores
from baechi.ir.cluster import Device, Link

__all__ = ["Machine", "cache_directory", "cached", "least_seconds", "measure_cpu", "tuned_environment"]

_VERSION = 5


@dataclass(frozen=True, slots=True)
class Machine:
    """What one core can do, and what lies between two threads and between two processes.

    Attributes:
        flops_per_second: of a large float32 matrix product.
        bytes_per_second: of memory read and written by an element-wise op.
        launch_seconds: the least time of an op.
        copy_bytes_per_second: of one tensor copied between two virtual devices.
        handoff_seconds: from one thread's signal to another thread's next instruction.
        wire_bytes_per_second: of one tensor sent from one process to another, by the time that it takes of both
            their cores.
        wire_seconds: what any takes besides.
        cores: of the machine, as far as this process may use them.
    """

    flops_per_second: float
    bytes_per_second: float
    launch_seconds: float
    copy_bytes_per_second: float
    handoff_seconds: float
    wire_bytes_per_second: float
    wire_seconds: float
    cores: int

    def device(self, name: str, memory_bytes: int | None = None) -> Device:
        """A virtual device: one core."""
        return Device(
            name,
            memory_bytes,
            type="cpu",
            backend="cpu",
            flops_per_second={"float32": self.flops_per_second},
            bytes_per_second=self.bytes_per_second,
            launch_seconds=self.launch_seconds,
        )

    def link(self, *, processes: bool = True) -> Link:
        """Between two virtual devices.

        Args:
            processes: whether each is a process, and tensors are sent; else each is a thread, and a
                transfer is a hand-over to the copy lane, the copy, and a hand-over back.
        """
        if processes:
            return Link(self.wire_seconds, self.wire_bytes_per_second)
        return Link(2 * self.handoff_seconds, self.copy_bytes_per_second)

    def rates(self, *, processes: bool = True) -> dict[str, float]:
        """The same by the names of `config.LOCAL`, with the link between such devices."""
        link = self.link(processes=processes)
        return {
            "flops_per_second": self.flops_per_second,
            "bytes_per_second": self.bytes_per_second,
            "launch_seconds": self.launch_seconds,
            "link_latency_seconds": link.latency_seconds,
            "link_bytes_per_second": link.bytes_per_second,
        }


def tuned_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """What to add to the environment before a process that times steps starts.

    With its defaults, glibc gives large blocks back to the system and asks for them again in every
    step; on GPT-2 that made steps 20 to 55 % slower, unevenly. Threads must share one arena, for
    those of glibc's other arenas give their memory back whatever the threshold says. Large pages
    make what faults remain cheaper. Empty when all of it is set.
    """
    wanted = {
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        "KINETO_LOG_LEVEL": "99",
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": "1000000000000",
    }
    present = os.environ if environment is None else environment
    return {name: value for name, value in wanted.items() if name not in present}


def cache_directory() -> Path:
    """Where measurements are kept: ``$BAECHI_CACHE``, else ``~/.cache/baechi``."""
    return Path(os.environ.get("BAECHI_CACHE") or Path.home() / ".cache" / "baechi")


def measure_cpu(*, refresh: bool = False) -> Machine:
    """Measure this machine's CPU in some seconds, or read what was measured before.

    Args:
        refresh: measure even when there is a measurement.
    """
    identity = [_VERSION, platform.node(), platform.machine(), cores()]
    return cached("cpu.json", identity, _apart, refresh=refresh)


def cached(name: str, identity: list[object], measure: Callable[[], Machine], *, refresh: bool = False) -> Machine:
    """What was measured before on the same machine, or is now, and is kept then.

    Args:
        name: of the file in `cache_directory`.
        identity: of what was measured: a file with another is of no use.
        measure: does it.
        refresh: measure even when there is a measurement.
    """
    path = cache_directory() / name
    if not refresh and (known := _read(path, identity)) is not None:
        return known
    found = measure()
    _write(path, {"identity": identity, "machine": asdict(found)})
    return found


def _apart() -> Machine:
    """Measure in a thread of its own, whose settings end with it."""
    found: list[Machine] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            found.append(_measure())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller
            failed.append(error)

    thread = threading.Thread(target=work, name="baechi measure", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


def _read(path: Path, identity: list[object]) -> Machine | None:
    try:
        data = json.loads(path.read_text())
        return Machine(**data["machine"]) if data["identity"] == identity else None
    except (OSError, ValueError, TypeError, KeyError):
        return None  # no measurement, or one of another version


def _write(path: Path, data: dict[str, object]) -> None:
    """Replace the file at once; a cache that cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
            json.dump(data, file, indent=1)
        Path(file.name).replace(path)
    except OSError:
        return


def _measure() -> Machine:
    import torch

    from baechi.profile.wire import measure_wire

    torch.set_num_threads(1)
    with torch.inference_mode():
        side = 768
        a, b = torch.rand(side, side), torch.rand(side, side)
        product = least_seconds(lambda: torch.mm(a, b), 0.3)
        large = torch.rand(4 * 2**20)
        out = torch.empty_like(large)
        stream = least_seconds(lambda: torch.mul(large, 2.0, out=out), 0.2)
        clone = least_seconds(large.clone, 0.3)
        small = torch.rand(4)
        launch = least_seconds(lambda: [torch.ops.aten.relu.default(small) for _ in range(100)], 0.1) / 100
    copy, handoff = large.numel() * 4 / clone, _handoff()
    wire = measure_wire() or (2 * handoff, copy)
    return Machine(
        flops_per_second=2.0 * side**3 / product,
        bytes_per_second=2.0 * large.numel() * 4 / stream,
        launch_seconds=launch,
        copy_bytes_per_second=copy,
        handoff_seconds=handoff,
        wire_bytes_per_second=wire[1],
        wire_seconds=wire[0],
        cores=cores(),
    )


def least_seconds(work: Callable[[], object], seconds: float) -> float:
    """The least time of `work` in so many seconds: what the machine can do when nobody disturbs it."""
    work()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def _handoff(rounds: int = 200) -> float:
    """Half the time of a round trip between two threads that wait on locks, averaged over some."""
    there, back = threading.Lock(), threading.Lock()
    there.acquire()
    back.acquire()
    best = float("inf")
    for _ in range(10):
        thread = threading.Thread(target=_answer, args=(there, back, rounds), daemon=True)
        thread.start()
        start = time.perf_counter()
        for _ in range(rounds):
            there.release()
            back.acquire()
        best = min(best, time.perf_counter() - start)
        thread.join()
    return best / rounds / 2


def _answer(there: threading.Lock, back: threading.Lock, rounds: int) -> None:
    for _ in range(rounds):
        there.acquire()
        back.release()
