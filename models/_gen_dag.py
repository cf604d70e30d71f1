"""The random graphs of the benchmark, and their data form."""

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from baechi.document import Entry, Source
from baechi.errors import BaechiError
from baechi.frontends.workload import read_gen_dag
from baechi.ir.graph import Graph
from baechi.models.base import at_least

__all__ = ["DAG_KINDS", "dag", "dag_data", "from_gen_dag"]

DAG_KINDS = ("branchy", "layered", "wide")


def dag(kind: str, n: int, seed: int) -> Graph:
    """The benchmark graph of a kind, size and seed; see `dag_data`.

    Example:
        >>> graph = dag("layered", 1000, 1)
        >>> len(graph), round(sum(op.seconds for op in graph.ops) * 1e6)
        (1000, 306533)
    """
    return from_gen_dag(dag_data(kind, n, seed), name=f"{kind}_{n}")


def dag_data(kind: str, n: int, seed: int) -> dict[str, Any]:
    """A random graph as data: log-normal times and sizes, the same for a seed on any machine.

    Args:
        kind: ``layered`` layers of up to 32 ops that read 1 to 3 ops of the three layers before;
            ``wide`` the same with up to 128; ``branchy`` forks of 2 to 6 chains of 1 to 6 ops.
        n: number of ops; ``branchy`` may stop a few short of it.
        seed: of the random numbers.

    Returns:
        ``kind``, ``seed``, ``nodes`` (``id``, ``name``, ``compute_us``, and in bytes ``temp``,
        ``persistent``, ``out``) and ``edges``, pairs of ids.

    Raises:
        BaechiError: B102 on an unknown kind or a number of ops below 1.
    """
    if kind not in DAG_KINDS:
        raise BaechiError("B102", f"no kind of graph '{kind}'", help="one of: " + ", ".join(DAG_KINDS))
    at_least(1, n=n)
    grower = _Grower(seed)
    if kind == "branchy":
        grower.branch(n)
    else:
        grower.layer(n, 32 if kind == "layered" else 128)
    return {"kind": kind, "seed": seed, "nodes": grower.nodes, "edges": grower.edges}


class _Grower:
    """Grows a graph; the order of the draws is part of the graph's definition."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.nodes: list[dict[str, Any]] = []
        self.edges: list[list[int]] = []

    def add(self) -> int:
        r, i = self.random, len(self.nodes)
        compute_us = max(1, int(r.lognormvariate(5.0, 1.2)))
        temp = r.choice([0, 0, 0, r.randint(0, 8 << 20)])
        persistent = r.choice([0, 0, r.randint(0, 4 << 20)])
        out = max(int(r.lognormvariate(12.5, 1.5)), persistent)
        costs = {"compute_us": compute_us, "temp": temp, "persistent": persistent, "out": out}
        self.nodes.append({"id": i, "name": f"op{i}", **costs})
        return i

    def layer(self, n: int, width: int) -> None:
        layers: list[list[int]] = []
        while len(self.nodes) < n:
            size = min(self.random.randint(1, width), n - len(self.nodes))
            layer = [self.add() for _ in range(size)]
            pool = [i for before in layers[-3:] for i in before]
            for i in layer if pool else ():
                readings = min(len(pool), self.random.randint(1, 3))
                self.edges += [[j, i] for j in self.random.sample(pool, readings)]
            layers.append(layer)

    def branch(self, n: int) -> None:
        fork = self.add()
        while len(self.nodes) < n - 2:
            ends = []
            for _ in range(self.random.randint(2, 6)):
                end = self._grow_chain(fork, n)
                if end != fork:
                    ends.append(end)
            if len(self.nodes) >= n:
                break
            join = self.add()
            self.edges += [[end, join] for end in ends or [fork]]
            fork = join

    def _grow_chain(self, end: int, n: int) -> int:
        for _ in range(self.random.randint(1, 6)):
            if len(self.nodes) >= n - 1:
                break
            following = self.add()
            self.edges.append([end, following])
            end = following
        return end


def from_gen_dag(data: Mapping[str, Any], *, name: str | None = None) -> Graph:
    """Read a graph in the form of `dag_data`, as `read_target` reads such a file.

    Args:
        data: the graph; unknown entries are ignored.
        name: what to call the graph; its kind and size when not given.

    Raises:
        BaechiError: B105 at a missing or malformed entry, B2xx when the graph is bad.
    """
    root = Entry(dict(data), Source(name or "graph", "B105"))
    graph, _ = read_gen_dag(root, name or f"{data.get('kind', 'graph')}_{len(data.get('nodes', ()))}")
    return replace(graph, meta={key: data[key] for key in ("kind", "seed") if key in data})
