"""Other processes are busy while ops are measured, and none is left afterwards."""

import psutil
import torch
from torch import nn

from baechi.frontends.pytorch import capture
from baechi.profile.beside import busy_neighbours, neighbours_of
from baechi.profile.run import measure_ops


def children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "baechi.profile.beside" in " ".join(p.cmdline())]


def test_others_are_busy_inside_and_gone_after() -> None:
    with busy_neighbours(2):
        inside = children()
        assert len(inside) == 2
        before = [p.cpu_times().user for p in inside]
        while [p.cpu_times().user for p in inside] == before:
            sum(range(10_000))
    assert children() == []
    assert not any(p.is_running() for p in inside)


def test_neighbours_end_when_the_block_raises() -> None:
    try:
        with busy_neighbours(1):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert children() == []


def test_no_more_neighbours_than_cores() -> None:
    assert [neighbours_of(k, 4) for k in (1, 2, 4, 9)] == [0, 1, 3, 3]


def test_ops_measured_beside_others_are_the_same_ops() -> None:
    x = torch.ones(4, 8)
    program = capture(nn.Linear(8, 3), (x,), loss=torch.sum, optimizer="sgd")
    inputs = [(x,), {}]
    alone = measure_ops(program, lambda: nn.Linear(8, 3), inputs)
    assert measure_ops(program, lambda: nn.Linear(8, 3), inputs, beside=1).keys() == alone.keys()
