"""The conformance suite that every placer satisfies, for the authors of new ones."""

from collections.abc import Iterator

from baechi.errors import Infeasible
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.ir.plan import Plan
from baechi.ir.verify import verify
from baechi.placers.base import Placer

__all__ = ["check_placer"]


def check_placer(placer: Placer) -> None:
    """Run a placer on small graphs that have caught others and check what it promises.

    It gives a plan that the verifier accepts, or `Infeasible`; twice the same for the same input;
    it leaves its input alone; on one device without a cap it gives the serial plan.

    Raises:
        AssertionError: naming the graph and the promise that was broken.

    Example:
        >>> from baechi.placers import Etf
        >>> check_placer(Etf())
    """
    for graph in _graphs():
        for cluster in _clusters():
            digest = graph.digest
            plan = _attempt(placer, graph, cluster)
            again = _attempt(placer, graph, cluster)
            where = f"{placer.name} on '{graph.name}', {len(cluster)} devices of {cluster.devices[0].cap} bytes"
            _promise(graph.digest == digest, f"{where}: the graph was changed")
            if plan is None or again is None:
                _promise(plan is again, f"{where}: a plan only once of two times")
                continue
            broken = verify(graph, plan)
            _promise(not broken, f"{where}: {'; '.join(broken)}")
            _promise(plan.device == again.device and plan.order == again.order, f"{where}: not deterministic")
            if len(cluster) == 1:
                serial = sum(op.seconds or 0.0 for op in graph.ops)
                _promise(abs(plan.predicted.step_seconds - serial) < 1e-9, f"{where}: one device is not serial")


def _promise(kept: bool, message: str) -> None:
    if not kept:
        raise AssertionError(message)


def _attempt(placer: Placer, graph: Graph, cluster: Cluster) -> Plan | None:
    try:
        return placer.place(graph, cluster)
    except Infeasible:
        return None


def _clusters() -> Iterator[Cluster]:
    link = Link(0.1, 100.0)
    for count, memory in ((1, 10**6), (2, 10**6), (3, 60), (2, 12)):
        devices = tuple(Device(f"d{k}", memory) for k in range(count))
        for contention in ("sequential", "duplex", "parallel"):
            yield Cluster(devices, link, contention=contention)
    yield Cluster((Device("slow", 40), Device("fast", 30, speed=3.0)), link)


def _graphs() -> Iterator[Graph]:
    yield Graph((Op("only", "op", seconds=1.0, expert=0),), "one op")
    yield _chain("chain", 6, 1.0)
    yield _chain("zero-cost chain", 6, 0.0)
    wide = [Op("fork", "op", seconds=0.5, outputs=(Tensor("t", 4),), expert=0)]
    wide += [Op(f"b{k}", "op", ("t",), (Tensor(f"t{k}", 3),), seconds=1.0 + k, expert=k) for k in range(4)]
    wide.append(Op("join", "op", tuple(f"t{k}" for k in range(4)), seconds=0.5, expert=0))
    yield Graph(tuple(wide), "fork and join")
    grouped = tuple(
        Op(f"o{k}", "op", (f"t{k - 1}",) if k else (), (Tensor(f"t{k}", 2),), persistent_bytes=3, seconds=1.0,
           group=f"g{k % 2}", expert=0)
        for k in range(6)
    )  # fmt: skip
    yield Graph(grouped, "two groups")
    view = Tensor("v", 4, alias_of="x")
    yield Graph(
        (
            Op("make", "op", outputs=(Tensor("x", 4),), seconds=1.0, expert=0),
            Op("view", "view", ("x",), (view,), seconds=0.0, expert=1),
            Op("read", "op", ("v",), (Tensor("y", 4, keep=True),), seconds=1.0, expert=0),
            Op("write", "update", ("x",), after=("read",), seconds=1.0, phase="update", expert=1),
        ),
        "view and control dependency",
    )


def _chain(name: str, count: int, seconds: float) -> Graph:
    ops = (
        Op(f"o{k}", "op", (f"t{k - 1}",) if k else (), (Tensor(f"t{k}", 4),), seconds=seconds, expert=k)
        for k in range(count)
    )
    return Graph(tuple(ops), name)
