"""A process is held to its cap: what was counted to fit trains, what was not ends in one clear error."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from baechi.backends.heap import reusing_environment
from baechi.backends.limits import allocations, explain_out_of_memory

MB = 1_000_000

TRAIN = """
import sys, torch
from torch import nn
from baechi.backends.heap import map_large_blocks
from baechi.backends.limits import explain_out_of_memory, limit_memory

torch.set_num_threads(1)
cap = int(sys.argv[1])
map_large_blocks()
limit = limit_memory(cap)
assert limit.total_bytes > limit.held_bytes + cap
try:
    layers = nn.Sequential(*[nn.Linear(2000, 2000, bias=False) for _ in range(6)])  # 96 MB, and as much for gradients
    optimizer = torch.optim.Adam(layers.parameters())  # 192 MB
    for _ in range(2):
        optimizer.zero_grad()
        layers(torch.ones(10, 2000)).sum().backward()
        optimizer.step()
except (RuntimeError, MemoryError) as error:
    raise SystemExit(str(explain_out_of_memory(error, "cpu:3", cap)))
print("trained")
"""


def train(cap_bytes: int, more: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    command = [sys.executable, "-c", TRAIN, str(cap_bytes)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can limit a process's memory")


REUSING = reusing_environment(900 * MB, 1000 * MB, {})
heaps = pytest.mark.parametrize(
    "heap",
    [
        pytest.param({}, id="glibc"),
        pytest.param(REUSING, id="tbb", marks=pytest.mark.skipif(not REUSING, reason="tbb is not installed")),
    ],
)
reusing = pytest.mark.skipif(not REUSING, reason="tbb is not installed")


@linux
@heaps
def test_a_process_trains_within_what_its_tensors_need(heap: Mapping[str, str]) -> None:
    """Parameters, gradients and two states are 384 MB; the update needs two temporaries for a list of tensors."""
    ran = train(384 * MB + 2 * 96 * MB, heap)
    assert (ran.returncode, ran.stdout) == (0, "trained\n"), ran.stderr


@linux
@heaps
def test_a_process_that_needs_more_ends_with_one_clear_error(heap: Mapping[str, str]) -> None:
    ran = train(200 * MB, heap)
    assert ran.returncode == 1
    assert ran.stderr.startswith("error[B615]: the worker of 'cpu:3' passed its cap of 191 MiB\n  help: ")
    assert len(ran.stderr.splitlines()) == 2


@linux
@heaps
def test_free_memory_of_the_allocator_is_no_gift(heap: Mapping[str, str]) -> None:
    """150 MB that were freed before the limit are part of the cap, not beside it, though the heap keeps them.

    The cap and its allowance are 234 MB; glibc says what else it has free, oneTBB's regions do not.
    """
    program = """
import torch
from baechi.backends.limits import limit_memory
blocks = [torch.ones(MB // 4) for _ in range(150)]
last = torch.ones(1000)
del blocks
limit_memory(100 * MB)
kept = []
try:
    while True:
        kept.append(torch.ones(MB // 4))
except RuntimeError:
    print(len(kept))
"""
    program = f"MB = {MB}\n{program}"
    tuned = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "1000000000000", "MALLOC_ARENA_MAX": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, **tuned, **heap},
        timeout=120,
        check=False,
    )
    assert 100 <= int(ran.stdout) <= 234 + (20 if heap else 6), ran.stderr


@linux
@reusing
@pytest.mark.parametrize("megabytes", [4, 100])
def test_a_freed_block_is_used_again_without_a_page_fault(megabytes: int) -> None:
    """Of the C library, each large block has pages of its own under a tight cap: 256 of 4 KiB, or fewer larger ones."""
    program = """
import resource, sys, torch
from baechi.backends.heap import is_reusing, map_large_blocks
assert is_reusing() and not map_large_blocks()

def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(3):
    torch.ones(int(sys.argv[1]) * 2**18)
before = faults()
for _ in range(20):
    torch.ones(int(sys.argv[1]) * 2**18)
print(faults() - before)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, str(megabytes)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **REUSING},
        timeout=120,
        check=False,
    )
    assert int(ran.stdout) < 200, ran.stderr


@linux
@reusing
def test_what_is_kept_for_reuse_is_given_back_when_memory_runs_out() -> None:
    """250 MB of 3 MB blocks are freed under a cap of 300 MB; then blocks of 7 MB have room that none of theirs has."""
    program = """
import torch
from baechi.backends.limits import limit_memory
limit_memory(300_000_000, allowance_bytes=20_000_000)
small = [torch.ones(750_000) for _ in range(97)]
del small[1:84]
large = [torch.ones(1_750_000) for _ in range(30)]
print(len(large))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **REUSING},
        timeout=120,
        check=False,
    )
    assert ran.stdout == "30\n", ran.stderr


@reusing
def test_a_process_reuses_memory_where_it_is_neither_plenty_nor_full() -> None:
    cap, beside = 10_000 * MB, {"LD_PRELOAD": "/lib/other.so"}
    assert reusing_environment(5_000 * MB, cap) == {}  # plenty
    assert reusing_environment(9_500 * MB, cap) == {}  # rounded up by an eighth it would be too much
    found = reusing_environment(8_000 * MB, cap, beside)
    assert found["LD_PRELOAD"].startswith("/lib/other.so:")
    assert "tbbmalloc_proxy" in found["LD_PRELOAD"]


@linux
@pytest.mark.parametrize(
    ("share", "kilobytes", "given_back"), [(0.5, 3000, False), (0.7, 600, False), (0.7, 3000, True), (0.9, 600, True)]
)
def test_the_fuller_a_process_the_smaller_the_holes_that_stay(share: float, kilobytes: int, given_back: bool) -> None:
    """Every second of 100 blocks is freed: its memory goes back to the system, or the heap keeps a hole for it."""
    program = """
import sys, torch
from baechi.backends.heap import map_large_blocks

def written() -> int:
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData"))

share, size = float(sys.argv[1]), int(sys.argv[2]) * 1000
assert map_large_blocks(share) == (share > 0.6)
blocks = [torch.ones(size // 4) for _ in range(100)]
before = written()
del blocks[::2]
print((before - written()) * 1024 / (50 * size))
"""
    tuned = {"MALLOC_MMAP_THRESHOLD_": "33554432", "OMP_NUM_THREADS": "1"} if share <= 0.6 else {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", program, str(share), str(kilobytes)],
        capture_output=True,
        text=True,
        env={**os.environ, **tuned},
        timeout=120,
        check=False,
    )
    assert float(ran.stdout) == pytest.approx(1.0 if given_back else 0.0, abs=0.1), ran.stderr


def test_the_limit_itself_leaves_the_random_numbers_alone(tmp_path: Path) -> None:
    program = """
import torch
from baechi.backends.limits import limit_memory
torch.manual_seed(3)
limit_memory(10**9)
print(torch.rand(1).item())
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    torch.manual_seed(3)
    assert float(ran.stdout) == torch.rand(1).item()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError("std::bad_alloc"),
        OSError(12, "Cannot allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    ],
)
def test_every_way_to_run_out_of_memory_is_one_error(error: Exception) -> None:
    found = explain_out_of_memory(error, "cpu:1", 2 * 2**30)
    assert found is not None
    assert (found.code, found.what) == ("B615", "the worker of 'cpu:1' passed its cap of 2.00 GiB")
    assert found.help


def test_the_error_behind_an_error_counts() -> None:
    outer = RuntimeError("aten.mm failed")
    outer.__cause__ = MemoryError()
    assert explain_out_of_memory(outer, "cpu:1", 100) is not None


def test_other_errors_are_not_explained_away() -> None:
    assert explain_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "cpu:1", 100) is None


def test_peak_of_element_wise_ops_in_closed_form() -> None:
    """The inputs were there before and end inside: neither counts. At most two results live at once."""
    old = torch.ones(MB // 4)
    with allocations() as found:
        a = old + 1
        del old
        b = a * 2
        del a
        c = b.exp()
        del b
    assert found.peak_bytes == pytest.approx(2 * MB, abs=100)
    assert found.kept_bytes == MB
    assert c.numel() == MB // 4


def test_peak_of_a_training_step_in_closed_form() -> None:
    """A chain of five squares keeps five results; backward adds two gradients to what is left of them."""
    x = torch.ones(MB // 4, requires_grad=True)
    with allocations() as found:
        y = x
        for _ in range(5):
            y = y.sin()
        total = y.sum()
        del y
        total.backward()
    # When the last sine goes backward its own result is gone: four results, its cosine, and the gradient.
    assert found.peak_bytes == pytest.approx(6 * MB, abs=1000)
    assert found.kept_bytes == pytest.approx(MB, abs=1000)


def test_what_was_freed_elsewhere_and_allocated_again_counts_once() -> None:
    module = nn.Linear(500, 500, bias=False)
    with allocations() as found:
        for _ in range(3):
            module.zero_grad()
            module(torch.ones(1, 500)).sum().backward()
    assert found.kept_bytes == pytest.approx(MB, abs=5000)
    assert found.peak_bytes < 1.1 * MB


FULL = """
import torch
from baechi.backends.limits import allocations, limit_memory

torch.set_num_threads(1)
limit_memory(400_000_000)
for _ in range(3):  # afterwards all that the process may hold is free, and kept by the allocator
    blocks = []
    try:
        while True:
            blocks.append(torch.empty(25_000 + len(blocks) * 7919 % 200_000))
    except RuntimeError:
        blocks.clear()
with allocations() as found:
    torch.ones(1000).sum()
print(found.peak_bytes)
"""


@linux
@heaps
def test_memory_is_followed_where_free_blocks_fill_the_cap(heap: dict[str, str]) -> None:
    """The profiler starts a thread, whose stack is not taken from the allocator."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **heap}
    ran = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr
    assert 4000 <= int(ran.stdout) < 4200
