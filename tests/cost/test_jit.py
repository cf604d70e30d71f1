"""Machine code on disk follows whatever was compiled into it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LEAVES = """
from typing import NamedTuple
import numpy as np
from baechi.cost.jit import leaf

SCALE = 2
TABLE = np.array([1, 2])

class Pair(NamedTuple):
    first: int
    second: int

@leaf
def deeper(x):
    return x + 1

@leaf
def scaled(x):
    return SCALE * deeper(x) + TABLE[1]
"""
KERNELS = """
from baechi.cost.jit import kernel
from leaves import Pair, scaled

@kernel
def called(pair):
    return scaled(pair.first) + later(pair.second)

from baechi.cost.jit import leaf

@leaf
def later(x):
    return 100 * x

print(called(Pair(3, 1)), sum(called.stats.cache_hits.values()))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "leaves.py").write_text(LEAVES)
    (tmp_path / "kernels.py").write_text(KERNELS)
    return tmp_path


def _run(project: Path) -> tuple[int, int]:
    """Run in a fresh process: what the kernel gives, and how often its machine code came from the disk."""
    search = os.pathsep.join([str(project), *sys.path])
    environment = {**os.environ, "PYTHONPATH": search, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "kernels.py"]
    done = subprocess.run(command, check=False, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    value, hits = map(int, done.stdout.split())
    return value, hits


def test_code_is_kept_as_long_as_nothing_in_it_changes(project: Path) -> None:
    assert _run(project) == (110, 0)
    assert _run(project) == (110, 1)
    with (project / "leaves.py").open("a") as leaves:
        leaves.write("\nUNRELATED = 7\n")
    assert _run(project) == (110, 1)


@pytest.mark.parametrize(
    ("before", "after", "value"),
    [
        ("return x + 1", "return x + 2", 112),
        ("return x + 1", "return x - 1", 106),
        ("SCALE = 2", "SCALE = 3", 114),
        ("[1, 2]", "[1, 5]", 113),
        ("first: int\n    second: int", "second: int\n    first: int", 306),
        ("SCALE * deeper(x)", "deeper(SCALE * x)", 109),
    ],
)
def test_a_change_in_another_file_is_compiled(project: Path, before: str, after: str, value: int) -> None:
    assert _run(project) == (110, 0)
    leaves = project / "leaves.py"
    assert before in leaves.read_text()
    leaves.write_text(leaves.read_text().replace(before, after))
    assert _run(project) == (value, 0)
    assert _run(project) == (value, 1)
