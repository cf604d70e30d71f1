"""Run a plan with a process for each device: start them here, or be one of those that torchrun started."""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from baechi.cli.children import child_environment
from baechi.cli.output import progress
from baechi.errors import BaechiError

if TYPE_CHECKING:
    from baechi.backends.pytorch.workers.world import World
    from baechi.ir.plan import Plan
    from baechi.profile.apart import Order, Report
    from baechi.target import Target

__all__ = ["be_worker", "is_worker", "main", "start_workers"]

_POLL_SECONDS = 0.05
_GRACE_SECONDS = 1.0
_LOST = 75
"""Exit code of a worker that ends because another is gone."""


def is_worker() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def start_workers(plan: "Plan", target: "Target", order: "Order") -> "tuple[Report, ...]":
    """Run a plan on this machine with a process for each device that it uses.

    Returns:
        What each worker reports, by rank.

    Raises:
        BaechiError: B606 when this machine lacks a device, B610 when it lacks the memory, B617 when a
            worker dies, or what the first worker that fails raises.
    """
    from baechi.backends.heap import reusing_environment
    from baechi.backends.pytorch.executor import torch_devices
    from baechi.backends.pytorch.workers.whole import ranks_of
    from baechi.jobs.pytorch import torch_program
    from baechi.profile.run import check_memory

    torch_devices(plan)
    check_memory(torch_program(target.program), plan)
    held = [plan.cluster.device[name] for name in ranks_of(plan)] if order.capped else []
    heaps = {d.name: reusing_environment(plan.predicted.peak_bytes[d.name], d.cap) for d in held if d.backend == "cpu"}
    try:
        return _run(plan, target, order, heaps)
    except BaechiError as error:
        if error.code != "B615" or not any(heaps.values()):
            raise
        return _run(plan, target, order, {})  # more slowly, and without the holes of blocks that are reused


def _run(
    plan: "Plan", target: "Target", order: "Order", heaps: Mapping[str, Mapping[str, str]]
) -> "tuple[Report, ...]":
    """The same, with these variables in the environment of the worker of each device."""
    from baechi.backends.pytorch.workers.whole import ranks_of
    from baechi.backends.pytorch.workers.world import World, host_store

    names = tuple(ranks_of(plan))
    store, port = host_store()
    with _processes([heaps.get(name, {}) for name in names], port) as processes:
        store.set("order", pickle.dumps(order))
        World(0, len(names), store).publish(_parts(plan, target, order))
        with progress(f"training {target.name} in {len(names)} processes"):
            _watch(processes, names, store)
    return _reports(store, len(names))


def _parts(plan: "Plan", target: "Target", order: "Order") -> Any:
    from baechi.api import timeline_of
    from baechi.backends.pytorch.workers.emit import make_parts
    from baechi.cli.subject import measured_table
    from baechi.jobs.pytorch import torch_program

    timeline = timeline_of(target.graph, plan, measured_table(None))
    return make_parts(torch_program(target.program), plan, timeline, traced=order.traced)


def _reports(store: Any, count: int) -> "tuple[Report, ...]":
    """Wait for what all workers report, by rank."""
    return tuple(pickle.loads(store.get(f"report/{rank}")) for rank in range(count))


@contextlib.contextmanager
def _processes(own: Sequence[Mapping[str, str]], port: int) -> "Iterator[list[subprocess.Popen[bytes]]]":
    """Worker processes, each with variables of its own; none of them is left when the block ends."""
    count = len(own)
    common = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    common |= {"TORCH_CPP_LOG_LEVEL": "ERROR", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if sys.platform == "linux":
        common["GLOO_SOCKET_IFNAME"] = "lo"
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank, more in enumerate(own):
            environment = child_environment({**common, **more, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            command = [sys.executable, "-m", __name__]
            processes.append(subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=2))
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()


def _watch(processes: "Sequence[subprocess.Popen[bytes]]", names: Sequence[str], store: Any) -> None:
    """Wait for all; the first that fails ends the run."""
    while True:
        codes = [process.poll() for process in processes]
        if all(code == 0 for code in codes):
            return
        if any(code not in (0, None) for code in codes):
            raise _failure(processes, names, store)
        time.sleep(_POLL_SECONDS)


def _failure(processes: "Sequence[subprocess.Popen[bytes]]", names: Sequence[str], store: Any) -> BaechiError:
    """Why a run failed: a worker that was killed, else what the first to fail said."""
    end = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < end and not any((process.poll() or 0) < 0 for process in processes):
        if store.check(["failure"]) and json.loads(store.get("failure"))["code"] != "B617":
            break
        time.sleep(_POLL_SECONDS)
    for name, process in zip(names, processes, strict=True):
        if (process.returncode or 0) < 0:
            how = f"was killed by {signal.Signals(-process.returncode).name}"
            return BaechiError(
                "B617",
                f"the worker of '{name}' (process {process.pid}) {how}",
                help="go on from the last checkpoint with --resume, if the run kept any",
            )
    if store.check(["failure"]):
        told = json.loads(store.get("failure"))
        return BaechiError(told["code"], told["what"], help=told["help"])
    name, process = next((n, p) for n, p in zip(names, processes, strict=True) if p.returncode)
    return BaechiError("B617", f"the worker of '{name}' ended with exit code {process.returncode}")


def be_worker(plan: "Plan", target: "Target", order: "Order") -> "tuple[Report, ...] | None":
    """Be one of the workers that torchrun started; rank 0 cuts the plan into parts for all.

    Returns:
        On rank 0 what each worker reports, by rank; None on the others.

    Raises:
        BaechiError: what went wrong, on the one worker that is to say so.
    """
    from baechi.backends.pytorch.workers.world import find_world

    world = find_world()
    with _failures_told(world):
        if world.rank == 0:
            world.store.set("order", pickle.dumps(order))
            world.publish(_parts(plan, target, order))
        _work(world, target)
        reports = _reports(world.store, world.size)
        return reports if world.rank == 0 else None


def _work(world: "World", target: "Target | None") -> None:
    """Do this worker's part; without a target, the order says which."""
    from baechi.jobs.pytorch import TorchJob
    from baechi.profile.apart import train_share
    from baechi.target import load_target

    order: Order = pickle.loads(world.store.get("order"))
    if target is None:
        known = order.target
        target = load_target(known["target"], batch=known.get("batch"), options=known.get("options"))
    job = target.code
    assert isinstance(job, TorchJob)  # those of another framework run in another way
    part = world.part()  # after the target: what its code defines may be in the part
    report = train_share(part, job.build, job.inputs, order, world)
    world.store.set(f"report/{world.rank}", pickle.dumps(report))


@contextlib.contextmanager
def _failures_told(world: "World") -> Iterator[None]:
    """The first worker that fails says why; one that only lost another ends in silence when the reason is known."""
    try:
        yield
    except BaechiError as error:
        if not world.fail(error):
            raise SystemExit(_LOST) from error
        raise


def main() -> int:
    """Be a worker that `start_workers` started: the order and the part come from its store."""
    threading.Thread(target=_end_with_parent, daemon=True).start()  # before imports that take seconds
    from baechi.backends.pytorch.workers.world import find_world

    world = find_world()
    try:
        with _failures_told(world):
            _work(world, None)
    except BaechiError:
        return 1  # the parent says it
    return 0


def _end_with_parent() -> None:
    """The parent holds the other end of stdin as long as it lives."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
