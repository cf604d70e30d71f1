"""Who has which stage of the model, in every cluster: what all peers of a run must agree on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from baechi.frontends.pytorch import TorchProgram
from baechi.replicas.ravnest.crews import Crew, assemble
from baechi.replicas.ravnest.cut import Cut, cut_step
from baechi.replicas.ravnest.nodes import Node
from baechi.replicas.ravnest.rings import Ring, find_rings

__all__ = ["Layout", "Seat", "lay_out"]


@dataclass(frozen=True, slots=True)
class Seat:
    """A peer's place; both are None of a peer without a stage."""

    cluster: int | None = None
    stage: int | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Clusters of peers with a stage of the model each.

    Attributes:
        graph: digest of the step that they train.
        peers: by cluster and stage, which peer it is.
        devices: by cluster, the peer's name by op.
        lines: by cluster, the peers' names in order.
        under_way: by cluster, how many micro-batches at once.
        rates: by cluster, micro-batches a second as predicted.
    """

    graph: str
    peers: tuple[tuple[int, ...], ...]
    devices: tuple[Mapping[str, str], ...]
    lines: tuple[tuple[str, ...], ...]
    under_way: tuple[int, ...]
    rates: tuple[float, ...]

    def seat(self, peer: int) -> Seat:
        """Where a peer sits."""
        for c, stages in enumerate(self.peers):
            if peer in stages:
                return Seat(c, stages.index(peer))
        return Seat()

    def cut(self, program: TorchProgram, cluster: int, targets: int) -> Cut:
        """The step as a cluster's stages; arguments and errors as `cut_step`."""
        return cut_step(program, self.devices[cluster], self.lines[cluster], targets)

    def rings(self, program: TorchProgram, targets: int) -> tuple[Ring, ...]:
        """Slices of the trained parameters, each of one type, that one peer of each cluster holds."""
        cuts = [self.cut(program, c, targets) for c in range(len(self.peers))]
        splits = [[cut.trained(s) for s in range(cut.count)] for cut in cuts]
        order = [name for names in splits[0] for name in names]
        types = {name: program.graph.op[program.parameters[name]].outputs[0].dtype for name in order}
        parts = ((ring, groupby(ring.names, key=types.__getitem__)) for ring in find_rings(splits, order))
        return tuple(Ring(tuple(names), ring.stages) for ring, typed in parts for _, names in typed)


def lay_out(
    program: TorchProgram,
    nodes: Sequence[Node],
    clusters: int | None = None,
    *,
    placer: str = "contiguous",
    under_way: int | None = None,
    seed: int = 0,
) -> Layout:
    """Form clusters and cut the model for each.

    Args:
        program: a training step on one micro-batch.
        nodes: the peers.
        clusters, placer, seed: as for `assemble`.
        under_way: at most so many micro-batches at once in a cluster.

    Raises:
        BaechiError, Infeasible: as `assemble`.
    """
    _, crews = assemble(program.graph, nodes, clusters, placer=placer, seed=seed)
    index = {node.name: i for i, node in enumerate(nodes)}
    lines = tuple(tuple(share.peer for share in crew.stages) for crew in crews)
    return Layout(
        program.graph.digest,
        tuple(tuple(index[name] for name in line) for line in lines),
        tuple(dict(crew.plan.device) for crew in crews),
        lines,
        tuple(_at_once(crew, under_way) for crew in crews),
        tuple(crew.rate for crew in crews),
    )


def _at_once(crew: Crew, most: int | None) -> int:
    return crew.under_way if most is None else min(crew.under_way, most)
