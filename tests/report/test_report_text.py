"""What a person reads, word for word; ``python tests/report/test_report_text.py NAME`` prints one."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from baechi.api import place_graph, timeline_of
from baechi.errors import Infeasible
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.ir.plan import Plan
from baechi.report.explain_text import DeviceEstimate, Estimate, estimate_text, explain_text
from baechi.report.explanation import Share, explain
from baechi.report.facts import one_device
from baechi.report.text import Compared, compare_text, head, plan_text, run_text

GOLDEN = Path(__file__).parents[1] / "golden"
MIB = 2**20


def weight(name: str, nbytes: int, expert: int) -> Op:
    tensor = Tensor(name, nbytes, (nbytes // 4,), "float32", held=nbytes)
    return Op(name, "parameter", outputs=(tensor,), persistent_bytes=2 * nbytes, group=f"p:{name}", expert=expert)


def call(name: str, inputs: str, nbytes: int, seconds: float, module: str, expert: int, phase: str = "forward") -> Op:
    return Op(
        name,
        "aten.mm",
        tuple(inputs.split()),
        (Tensor(name, nbytes),) if nbytes else (),
        phase=phase,  # type: ignore[arg-type]
        flops=seconds * 1e9,
        seconds=seconds,
        temp_bytes=MIB // 4 if phase == "backward" else 0,
        module=module,
        source=f"net.py:{10 + expert}",
        expert=expert,
        group=f"p:{inputs.split()[-1]}" if phase == "update" else None,
    )


def net() -> Graph:
    """Two layers, forward, backward and update."""
    ops = (
        weight("w0", MIB, 0),
        weight("w1", 2 * MIB, 1),
        Op("x", "input", outputs=(Tensor("x", MIB, held=MIB),), persistent_bytes=MIB, expert=0),
        call("h", "x w0", MIB, 0.010, "layers.0", 0),
        call("y", "h w1", MIB, 0.020, "layers.1", 1),
        call("dh", "y w1", MIB, 0.020, "layers.1", 1, "backward"),
        call("dw1", "h y", 2 * MIB, 0.020, "layers.1", 1, "backward"),
        call("dw0", "x dh", MIB, 0.010, "layers.0", 0, "backward"),
        call("u1", "dw1 w1", 0, 0.001, "", 1, "update"),
        call("u0", "dw0 w0", 0, 0.001, "", 0, "update"),
    )
    return Graph(ops, "net", {"target": {"name": "net", "target": "net:make", "batch": 32}})


CLUSTER = Cluster((Device("gpu:0", 6 * MIB, type="small"), Device("gpu:1", 12 * MIB, type="large")), Link(1e-4, 1e9))


def placed(placer: str) -> Plan:
    plan = place_graph(net(), CLUSTER, placer)
    return replace(plan, placer=replace(plan.placer, seconds=0.002))


def place() -> str:
    plan = placed("expert")
    return plan_text(net(), plan, timeline_of(net(), plan), one_device(net(), CLUSTER), seconds=0.25)


def run() -> str:
    return run_text(
        placed("expert"),
        name="net",
        seconds=(0.066, 0.067, 0.070),
        median=0.067,
        spread=0.03,
        losses=(2.3025, 2.25, 2.125, 1.5),
        peaks={"gpu:0": 5 * MIB, "gpu:1": 9 * MIB},
    )


def compare() -> str:
    found = [Compared("expert", placed("expert"), measured=0.067)]
    for name in ("single", "round-robin"):
        try:
            found.append(Compared(name, placed(name)))
        except Infeasible as error:
            found.append(Compared(name, why=error.what.removeprefix(f"'{name}' ")))
    found.append(Compared("m-etf", why="does not fit: gpu:0 needs 16.0 MiB, it has 6.00 MiB " + "and so on " * 4))
    return compare_text(head(net(), CLUSTER), found, one_device(net(), CLUSTER), found[0].plan.bounds)  # type: ignore[union-attr]


def explained() -> str:
    plan = placed("expert")
    return explain_text(net(), plan, head(net(), CLUSTER), explain(net(), plan, timeline_of(net(), plan)))


def estimate() -> str:
    return estimate_text(
        "net, batch 32",
        Estimate(
            25_000_000,
            (Share("forward", 1e9), Share("backward", 2e9)),
            400 * MIB,
            (Share("parameters", 100 * MIB), Share("activations", 300 * MIB)),
            (
                DeviceEstimate("rtx2080", "GeForce RTX 2080", 8 * 2**30, True, 0.002),
                DeviceEstimate("tiny", "a board with a name that is long", 256 * MIB, False, 1.5),
            ),
        ),
    )


TEXTS: dict[str, Callable[[], str]] = {
    "place": place,
    "run": run,
    "compare": compare,
    "explain": explained,
    "estimate": estimate,
}


def golden(name: str) -> str:
    return f"# python tests/report/test_report_text.py {name} > tests/golden/{name}.txt\n{TEXTS[name]()}"


@pytest.mark.parametrize("name", TEXTS)
def test_golden(name: str) -> None:
    assert golden(name) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TEXTS)
def test_80_columns(name: str) -> None:
    assert max(map(len, TEXTS[name]().splitlines())) <= 80


if __name__ == "__main__":
    sys.stdout.write(golden(sys.argv[1]))
