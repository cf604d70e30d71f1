"""Runs the command line in this process, and small files to run it on."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from baechi.cli.main import main
from baechi.ir.graph import Graph
from baechi.ir.json import write_graph
from baechi.ir.op import Op, Tensor


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


collect_ignore = ["tf_steps.py"]  # makes tensors when it is imported, as a person's module may

Cli = Callable[..., Ran]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """``cli("place", "models:mlp")``, with a cache of its own and machine rates that are not measured."""
    monkeypatch.setenv("BAECHI_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BAECHI_DEBUG", raising=False)

    def run(*argv: object) -> Ran:
        capsys.readouterr()
        code = main([str(a) for a in argv])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def fork_join(tmp_path: Path) -> Path:
    """Two independent seconds between two short ops; 4 bytes each, nothing else takes memory."""
    ops = (
        Op("in", "op", outputs=(Tensor("x", 4),), seconds=0.5),
        Op("left", "op", ("x",), (Tensor("l", 4),), seconds=1.0),
        Op("right", "op", ("x",), (Tensor("r", 4),), seconds=1.0),
        Op("out", "op", ("l", "r"), (Tensor("y", 4, keep=True),), seconds=0.5),
    )
    path = tmp_path / "fork_join.json"
    write_graph(Graph(ops, "fork_join"), path)
    return path


def workload(**changes: Any) -> dict[str, Any]:
    """A dnn-partitioning file of three nodes in a chain, 10 ms each, a transfer 1 ms, 5 bytes each."""
    nodes = [
        {"id": i, "fpgaLatency": 10.0, "cpuLatency": 100.0, "supportedOnFpga": 1, "size": 5.0, "isBackwardNode": 0}
        for i in range(3)
    ]
    edges = [{"sourceId": i, "destId": i + 1, "cost": 1.0} for i in range(2)]
    return {"maxSizePerFPGA": 10.0, "maxFPGAs": 2, "maxCPUs": 1, "nodes": nodes, "edges": edges, **changes}


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    path = tmp_path / "chain.json"
    path.write_text(json.dumps(workload()), encoding="utf-8")
    return path
