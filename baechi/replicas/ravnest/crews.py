"""Clusters of peers with a stage of the model for each peer, cut by a placer of ours under the peers' memory.

Ravnest cuts in proportion to memory; here the placers do, for the highest pace of a pipeline. A stage computes forward
twice, except the last, and may hold as many old versions of its weights as micro-batches are under way less one. Both
are counted: where the old versions do not fit, fewer micro-batches are under way, or the cluster is cut again in
the memory that they leave, whichever is faster.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from baechi.cost import CostTable, Problem
from baechi.errors import Infeasible
from baechi.ir.cluster import UNLIMITED_BYTES, Cluster
from baechi.ir.graph import Graph
from baechi.ir.plan import Plan
from baechi.placers import Single, make_plan
from baechi.replicas.ravnest.formation import Formation, form
from baechi.replicas.ravnest.line import Line, line_of
from baechi.replicas.ravnest.nodes import Node, cluster_of
from baechi.replicas.ravnest.rings import find_rings
from baechi.units import to_seconds

__all__ = ["Averaging", "Crew", "Share", "assemble", "averaging", "crew_of", "need_bytes"]

_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Share:
    """What a peer does.

    Attributes:
        peer: its name.
        ops: how many ops of a step it runs.
        peak_bytes: its memory at most, old weights included.
        weight_bytes: its weights, once.
        stash_bytes: old weights in the peak.
        memory_bytes: what it has.
        seconds: each micro-batch's time on it: computing, computing again, sending and receiving.
    """

    peer: str
    ops: int
    peak_bytes: int
    weight_bytes: int
    stash_bytes: int
    memory_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Crew:
    """A cluster of peers with the model.

    Attributes:
        plan: who runs which op.
        stages: the peers that have one, in the order of the pipeline.
        idle: the peers that have none.
        under_way: how many micro-batches the pipeline admits at once, at most as many as it has stages.
    """

    plan: Plan
    stages: tuple[Share, ...]
    idle: tuple[str, ...]
    under_way: int

    @property
    def rate(self) -> float:
        """Micro-batches a second: those of the slowest stage, or of all that are under way and wait for each other."""
        slowest = max(share.seconds for share in self.stages)
        through = sum(share.seconds for share in self.stages) / self.under_way
        return 1 / max(slowest, through) if slowest > 0 else float("inf")


@dataclass(frozen=True, slots=True)
class Averaging:
    """What one average over the clusters costs.

    Attributes:
        rings: how many slices go round.
        sent_bytes: of the peer that sends most.
        seconds: until the last ring is done, where each peer's rings share its line.
    """

    rings: int
    sent_bytes: int
    seconds: float


def averaging(graph: Graph, crews: Sequence[Crew], nodes: Sequence[Node]) -> Averaging:
    """Predict what averaging the crews' models costs (`baechi.replicas.ravnest.rings`)."""
    weights = {op.name: sum(t.nbytes for t in op.outputs) for op in graph.ops if op.kind == "parameter"}
    splits = [[{n for n in weights if c.plan.device[n] == s.peer} for s in c.stages] for c in crews]
    node, k = {one.name: one for one in nodes}, len(crews)
    sent: dict[str, int] = {}
    longest: dict[str, float] = {}
    rings = find_rings(splits, list(weights))
    for ring in rings:
        peers = [crew.stages[s].peer for crew, s in zip(crews, ring.stages, strict=True)]
        nbytes = 2 * (k - 1) * sum(weights[n] for n in ring.names) // k
        slowest = min(node[peer].bytes_per_second for peer in peers)
        wait = 2 * (k - 1) * 2 * max(node[peer].latency_seconds for peer in peers)
        for peer in peers:
            sent[peer] = sent.get(peer, 0) + nbytes
            longest[peer] = longest.get(peer, 0.0) + nbytes / slowest + wait
    return Averaging(len(rings), max(sent.values(), default=0), max(longest.values(), default=0.0))


def need_bytes(graph: Graph, nodes: Sequence[Node], table: CostTable | None = None) -> int:
    """What a training step takes on one device: what each cluster must hold together."""
    alone = replace(nodes[0].device, memory_bytes=UNLIMITED_BYTES)
    return Single().place(graph, Cluster((alone,)), table=table).predicted.peak_bytes[alone.name]


def assemble(
    graph: Graph,
    nodes: Sequence[Node],
    clusters: int | None = None,
    *,
    placer: str = "contiguous",
    seed: int = 0,
    table: CostTable | None = None,
) -> tuple[Formation, tuple[Crew, ...]]:
    """Form clusters and cut the model for each.

    Args:
        graph: a training step on one micro-batch.
        nodes: the peers.
        clusters: how many; when None as many as can hold the model, cut in stages.
        placer: what cuts it; what it finds is made into a line of stages.
        seed: of the searches.
        table: measured op times.

    Raises:
        BaechiError: B854 on a number of clusters that is none, B505 on an unknown placer.
        Infeasible: B855 when the clusters cannot hold the model, together or cut in stages.
    """
    need = need_bytes(graph, nodes, table)
    formation = form(nodes, need, clusters, seed)
    while True:
        try:
            crews = (crew_of(graph, [nodes[i] for i in c], placer, seed, table) for c in formation.clusters)
            return formation, tuple(crews)
        except Infeasible as error:
            fewer = len(formation.clusters) - 1
            if clusters is not None or fewer == 0:
                count = len(formation.clusters)
                each = "clusters cannot each" if count > 1 else "cluster cannot"
                what = f"{count} {each} hold the model in stages: {error.what}"
                raise Infeasible("B855", what, help="ask for fewer clusters, or add memory", proved=False) from None
            formation = form(nodes, need, fewer, seed)


def crew_of(graph: Graph, nodes: Sequence[Node], placer: str, seed: int, table: CostTable | None) -> Crew:
    """Cut the model for one cluster; arguments as `assemble`.

    Raises:
        Infeasible: B501 or B502 when it does not fit.
    """
    left, found = list(nodes), list[Crew]()
    for _ in range(_ROUNDS):
        problem = Problem(graph, cluster_of(left), table, "throughput")
        try:
            crew = _crew(problem, make_plan(Line(placer), problem, seed), nodes)
        except Infeasible:
            if not found:
                raise
            break
        found.append(crew)
        if crew.under_way == len(crew.stages):
            break
        wanted = {s.peer: s.weight_bytes * (len(crew.stages) - 1) for s in crew.stages[:-1]}
        left = [_less(node, wanted.get(node.name, 0)) for node in nodes]
    return max(found, key=lambda one: one.rate)


def _less(node: Node, nbytes: int) -> Node:
    """A peer in whose memory something else lies."""
    return replace(node, device=replace(node.device, memory_bytes=max(1, node.memory_bytes - nbytes)))


def _crew(problem: Problem, plan: Plan, nodes: Sequence[Node]) -> Crew:
    graph = problem.graph
    line = line_of(graph, [plan.device[op.name] for op in graph.ops])
    line += [node.name for node in nodes if node.name not in line and plan.order.get(node.name)]
    ticks = problem.arrays.ticks
    column = {device.name: d for d, device in enumerate(problem.cluster.devices)}
    memory = {node.name: node.memory_bytes for node in nodes}
    rows = []
    for k, name in enumerate(line):
        mine = [i for i, op in enumerate(graph.ops) if plan.device[op.name] == name]
        again = [i for i in mine if graph.ops[i].phase == "forward"] if k < len(line) - 1 else []
        seconds = plan.predicted.load_seconds[name] + to_seconds(int(np.sum(ticks[again, column[name]])))
        weights = sum(t.nbytes for i in mine if graph.ops[i].kind == "parameter" for t in graph.ops[i].outputs)
        rows.append(Share(name, len(mine), plan.predicted.peak_bytes[name], weights, 0, memory[name], seconds))
    room = [(s.memory_bytes - s.peak_bytes) // s.weight_bytes + 1 for s in rows[:-1] if s.weight_bytes]
    under_way = min([len(rows), *room])
    stages = [*(_stashed(s, under_way - 1) for s in rows[:-1]), *rows[-1:]]
    return Crew(plan, tuple(stages), tuple(node.name for node in nodes if node.name not in line), under_way)


def _stashed(share: Share, versions: int) -> Share:
    nbytes = share.weight_bytes * versions
    return replace(share, stash_bytes=nbytes, peak_bytes=share.peak_bytes + nbytes)
