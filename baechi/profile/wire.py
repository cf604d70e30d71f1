"""What one process takes to send a tensor to another on this machine, by gloo."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist

__all__ = ["main", "measure_wire", "raw_bandwidth", "transfer_seconds", "wire_points"]

_SMALLEST, _LARGE = 4, (4 * 2**20, 16 * 2**20)
_REPEATS = {_SMALLEST: 30, 2**16: 30, 2**18: 30, 2**20: 30, **dict.fromkeys(_LARGE, 3)}
_PATIENCE_SECONDS = 30.0
_RING, _ROUNDS = 4, 10
_COLD_BYTES = 64 * 2**20


def raw_bandwidth(peer: int, nbytes: int, repeats: int, *, ring: int = _RING) -> float:
    """Bytes per second of one tensor after another, one way, with nothing else to do.

    The lower of the two ranks sends all without waiting, the other has all receives posted; the
    clock stops when the sender hears that the last has come. Both ranks call it, in a process
    group that stands.

    Args:
        peer: the other rank.
        nbytes: of each tensor, a multiple of 4.
        repeats: how many are sent.
        ring: how many tensors' memory is used in turns; few of them stay in the cache.

    Returns:
        What the sender measured, on both ranks.
    """
    sends = dist.get_rank() < peer
    tensors = [torch.zeros(nbytes // 4) for _ in range(min(ring, repeats))]
    note = torch.zeros(1, dtype=torch.float64)
    _turn(sends, peer, tensors[0])  # connects, and both are here
    start = time.perf_counter()
    if sends:
        pending = [dist.isend(tensors[i % len(tensors)], peer) for i in range(repeats)]
    else:
        pending = [dist.irecv(tensors[i % len(tensors)], peer) for i in range(repeats)]
    for work in pending:
        assert work is not None  # this rank is in the group
        work.wait()
    if sends:
        dist.recv(note, peer)
        note.fill_(nbytes * repeats / (time.perf_counter() - start))
        dist.send(note, peer)
    else:
        dist.send(note, peer)
        dist.recv(note, peer)
    return note.item()


def transfer_seconds(peer: int, repeats: Mapping[int, int]) -> dict[int, float]:
    """Processor time, by bytes, that it takes of both ends to get one tensor, which is in no cache, from one to the other.

    A step keeps the cores busy, so that what a transfer takes of them is what it costs, not how soon it can be there
    when nothing else runs: copying into the system's buffers and out of them, and waking who waits.

    Both ranks call it, in a process group that stands, and learn the same: the lower quartile of some rounds, for what
    disturbs them only adds to them. Each round has all sizes, so that what lasts a while disturbs few rounds of each.

    Args:
        peer: the other rank.
        repeats: how often each tensor goes there and back in a round, by its bytes, multiples of 4.
    """
    leads = dist.get_rank() < peer
    tensors = {
        nbytes: [torch.zeros(nbytes // 4) for _ in range(max(2, min(times, _COLD_BYTES // max(nbytes, 1))))]
        for nbytes, times in repeats.items()
    }
    _turn(leads, peer, next(iter(tensors.values()))[0])
    spent = torch.zeros(_ROUNDS, len(repeats), dtype=torch.float64)
    for each in range(_ROUNDS):
        for k, (nbytes, times) in enumerate(repeats.items()):
            own = tensors[nbytes]
            began = time.process_time()
            for i in range(times):
                _turn(leads, peer, own[i % len(own)])
            spent[each, k] = time.process_time() - began
    dist.all_reduce(spent)
    quartiles = (statistics.quantiles(column, n=4)[0] for column in spent.T.tolist())
    return {nbytes: found / (2 * times) for (nbytes, times), found in zip(repeats.items(), quartiles, strict=True)}


def _turn(leads: bool, peer: int, tensor: torch.Tensor) -> None:
    """There and back again."""
    if leads:
        dist.send(tensor, peer)
        dist.recv(tensor, peer)
    else:
        dist.recv(tensor, peer)
        dist.send(tensor, peer)


def measure_wire() -> tuple[float, float] | None:
    """`transfer_seconds` between two new processes, as seconds of any tensor and bytes per second; None where gloo does
    not work."""
    points = dict(wire_points())
    if not points:
        return None
    latency = points[_SMALLEST]
    return latency, sum(_LARGE) / max(sum(points[n] for n in _LARGE) - 2 * latency, sys.float_info.min)


def wire_points() -> tuple[tuple[int, float], ...]:
    """Bytes, and their `transfer_seconds` between two new processes; none where gloo does not work."""
    with tempfile.TemporaryDirectory() as folder:
        ranks = [_start(rank, Path(folder) / "rendezvous") for rank in (0, 1)]
        try:
            answer, _ = ranks[0].communicate(timeout=_PATIENCE_SECONDS)
            ranks[1].wait(timeout=_PATIENCE_SECONDS)
            data = json.loads(answer) if ranks[0].returncode == 0 else None
        except (subprocess.TimeoutExpired, ValueError):
            return ()
        finally:
            for process in ranks:
                process.kill()
                process.communicate()
    return () if data is None else tuple((nbytes, seconds) for nbytes, seconds in data)


def _start(rank: int, rendezvous: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", __name__, str(rank), rendezvous.as_uri()]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=_environment(os.environ)
    )


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    """One thread each, and the network interface that stays on this machine."""
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    return {**environment, **loopback, "OMP_NUM_THREADS": "1"}


def main(rank: int, rendezvous: str) -> None:
    """One of the two processes; rank 0 prints what was found."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    peer = 1 - rank
    points = list(transfer_seconds(peer, _REPEATS).items())
    dist.destroy_process_group()
    if rank == 0:
        print(json.dumps(points))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
