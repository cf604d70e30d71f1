"""Calls of a solver beside TensorFlow."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from baechi.placers import apart
from baechi.placers.apart import call_solver


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process that may load TensorFlow."""
    monkeypatch.setattr(apart, "_is_shared", lambda: True)
    monkeypatch.setattr(apart, "_found", [])
    yield
    for other in apart._found:
        other.close()


def where(number: int, on_progress: object = None) -> tuple[int, int]:
    """In which process this runs; for the other process to import."""
    if callable(on_progress):
        on_progress(number, "half")
    return os.getpid(), number


def fail() -> None:
    raise ValueError("too much")


def sleep(seconds: float) -> str:
    try:
        time.sleep(seconds)
    except KeyboardInterrupt:
        return "interrupted"
    return "slept"


@pytest.mark.usefixtures("shared")
def test_one_other_process_answers_all_calls() -> None:
    name = f"{__name__}:where"
    told: list[object] = []
    first, second = call_solver(name, 1), call_solver(name, number=2, tell=lambda *args: told.append(args))
    assert (first[1], second[1], told) == (1, 2, [(2, "half")])
    assert first[0] == second[0] != os.getpid()
    with pytest.raises(ValueError, match="too much"):
        call_solver(f"{__name__}:fail")
    psutil.Process(first[0]).kill()
    psutil.wait_procs([psutil.Process(first[0])], 10)
    assert call_solver(name, 3)[1] == 3


@pytest.mark.usefixtures("shared")
def test_an_interrupt_reaches_the_call_and_the_next_call_works() -> None:
    call_solver(f"{__name__}:where", 0)
    timer = threading.Timer(1.0, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    assert call_solver(f"{__name__}:sleep", 60.0) == "interrupted"
    timer.join()
    assert call_solver(f"{__name__}:where", 4)[1] == 4


def test_tensorflow_and_the_solvers_in_any_order() -> None:
    """In one process each, in both orders, twice: they used to fail to load, or to crash."""
    pytest.importorskip("tensorflow")
    solve = "get_placer('m-sct').place(dag('layered', 60, 1), cluster); get_placer('exact', seconds=2.0).place(small, cluster)"
    code = f"""
from baechi.config import parse_cluster
from baechi.models.graphs import dag, random_dag
from baechi.placers import get_placer
cluster, small = parse_cluster("2x1GiB"), random_dag(1, 8)
def tensorflow():
    import tensorflow as tf
    assert float(tf.function(lambda x: x * x)(tf.constant(3.0))) == 9.0
def solver():
    {solve}
"""
    for order in ("tensorflow(); solver(); tensorflow(); solver()", "solver(); tensorflow(); solver()"):
        ran = subprocess.run([sys.executable, "-c", code + order], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr[-2000:]
