"""How workers find each other: the environment that torchrun gives them, a store, process groups."""

import contextlib
import datetime
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from baechi.backends.limits import explain_out_of_memory
from baechi.backends.pytorch.workers.part import Part, pack, unpack
from baechi.errors import BaechiError

__all__ = ["World", "connect", "explained", "find_world", "host_store", "settle"]

_PATIENCE = datetime.timedelta(minutes=30)
_POLL_SECONDS = 0.05
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, eq=False)
class World:
    """All workers of a run, seen by one of them.

    Attributes:
        rank: of this worker.
        size: number of workers.
        store: small data that all can read.
    """

    rank: int
    size: int
    store: Any

    def publish(self, parts: "tuple[Part, ...]") -> None:
        """Give each worker its part.

        Raises:
            BaechiError: B618 when there are more or fewer workers than parts.
        """
        _check_size(parts, self.size)
        for part in parts:
            self.store.set(f"part/{part.rank}", pack(part))

    def part(self) -> Part:
        """Wait for this worker's part.

        Raises:
            BaechiError: B617 when there will be none.
        """
        try:
            while not self.store.check([f"part/{self.rank}"]):
                if self.store.check(["failure"]):
                    told = json.loads(self.store.get("failure"))
                    what = f"there is no part to do, for rank {told['rank']} failed: {told['what']}"
                    raise BaechiError("B617", what, help=told["help"])
                time.sleep(_POLL_SECONDS)
            return unpack(self.store.get(f"part/{self.rank}"))
        except dist.DistError as error:
            help = "see what it says; it planned, and held what all workers read"
            raise BaechiError("B617", "there is no part to do, for rank 0 is gone", help=help) from error

    def fail(self, error: BaechiError) -> bool:
        """Say why the run ends; whether nobody has said so before."""
        mine = json.dumps({"rank": self.rank, "code": error.code, "what": error.what, "help": error.help})
        found: bytes = self.store.compare_set("failure", "", mine)
        return found.decode() == mine

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Tell the other workers of whatever is raised, so that none waits for a part that will not come."""
        try:
            yield
        except Exception as error:
            known = error if isinstance(error, BaechiError) else BaechiError("B617", f"{type(error).__name__}: {error}")
            self.fail(known)
            raise


def _check_size(parts: "tuple[Part, ...]", size: int) -> None:
    """Refuse a wrong number of workers.

    Raises:
        BaechiError: B618.
    """
    if len(parts) != size:
        names = ", ".join(part.device for part in parts)
        raise BaechiError(
            "B618",
            f"the plan needs {len(parts)} workers ({names}), {size} were started",
            help="--nnodes times --nproc-per-node of torchrun must be the number of devices that the plan uses",
        )


def find_world(environment: Mapping[str, str] = os.environ) -> World:
    """The world that the environment describes, as torchrun sets it.

    Raises:
        BaechiError: B606 when a variable is missing.
    """
    for name in _VARIABLES:
        if name not in environment:
            raise BaechiError("B606", f"{name} is not set, so this is no worker", help="start workers with torchrun")
    rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    is_agents = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = dist.TCPStore(  # type: ignore[attr-defined]
        environment["MASTER_ADDR"],
        int(environment["MASTER_PORT"]),
        size,
        is_master=rank == 0 and not is_agents,
        timeout=_PATIENCE,
        wait_for_workers=False,
    )
    attempt = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    return World(rank, size, _inside(store, attempt))


def host_store() -> tuple[Any, int]:
    """A store on this machine for workers that are about to start, and its port."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    return _inside(store, "0"), store.port


def _inside(store: Any, attempt: str) -> Any:
    return dist.PrefixStore(f"baechi/{attempt}", store)  # type: ignore[attr-defined]


def connect(part: Part, world: World) -> dict[tuple[int, int], Any]:
    """Join the other workers; returns a process group for each direction, none where one serves all.

    Processors talk over gloo. GPUs talk over NCCL, which keeps the order of calls on a group, so
    each direction between two of them has a group of its own; where a plan has both kinds, what
    GPUs send goes through memory of the processor.
    """
    if part.place.type == "cuda":
        torch.cuda.set_device(part.place)
    if not dist.is_initialized():
        dist.init_process_group("gloo", store=world.store, rank=world.rank, world_size=world.size, timeout=_PATIENCE)
    return {pair: dist.new_group(list(pair), backend="nccl", timeout=_PATIENCE) for pair in part.pairs}


@contextlib.contextmanager
def explained(part: Part) -> Iterator[None]:
    """Say in one error what ended what this worker did beside its steps: no more memory, or no other worker.

    Raises:
        BaechiError: B615 or B617; anything else goes on as it is.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if (known := explain_out_of_memory(error, part.device, part.cap_bytes)) is not None:
            raise known from error
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        what = f"the worker of '{part.device}' lost another worker"
        raise BaechiError(
            "B617", what, help="go on from the last checkpoint with --resume, if the run kept any"
        ) from error


def settle(part: Part) -> None:
    """Give this worker its threads, and cores of its own where the machine has enough of them."""
    torch.set_num_threads(part.threads)
    if not hasattr(os, "sched_setaffinity") or part.place.type != "cpu":
        return
    cores = sorted(os.sched_getaffinity(0))
    first, taken = part.cores
    if taken <= len(cores):
        os.sched_setaffinity(0, cores[first : first + part.threads])
