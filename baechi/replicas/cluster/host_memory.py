"""What a replica's gossip takes of the host's memory, and a cluster without it.

A replica's hub keeps copies of the whole model in the memory of its machine. Where the model is placed on processors of
that machine, they share it: what the hub takes at most is no longer theirs.
"""

from dataclasses import replace

from baechi.errors import Infeasible
from baechi.ir.cluster import Cluster
from baechi.ir.graph import Graph
from baechi.replicas.cluster.hub import HubOptions
from baechi.replicas.cluster.session import Session
from baechi.units import format_bytes

__all__ = ["beside_hub", "hub_copies", "model_bytes"]

_COPIES = {"symmetric": 6, "pull": 5, "push-sum": 9}
_DRACO = 8
_NARROW = ("bfloat16", "float16")  # numpy has no such type that computes: they are read as float32


def hub_copies(options: HubOptions) -> int:
    """Copies of the model that a hub holds at most, in the midst of an exchange beside a step's boundary.

    Its own and the one that the worker trains from, what was just read and its change, what has come and its effect; a
    rule keeps the newest of others, and stacks them.

    Example:
        >>> hub_copies(HubOptions(4))
        6
    """
    if options.draco is not None:
        return _DRACO
    gossip = options.gossip
    return _COPIES[gossip.mixing] + (2 * gossip.newest if gossip.rule is not None else 0)


def model_bytes(graph: Graph, *, buffers: bool = False) -> int:
    """Bytes of a model as replicas exchange it: its parameters, and floating-point buffers if these are mixed."""
    kinds = ("parameter", "buffer") if buffers else ("parameter",)
    tensors = [t for op in graph.ops if op.kind in kinds for t in op.outputs]
    floats = [t for t in tensors if t.dtype.startswith(("float", "bfloat"))]
    return sum(t.nbytes * (2 if t.dtype in _NARROW else 1) for t in floats)


def beside_hub(graph: Graph, cluster: Cluster, session: Session) -> Cluster:
    """The cluster with what the replica's hub takes of the memory of its machine's processors, each by its cap.

    Args:
        graph: the step to be placed.
        cluster: caps in bytes.
        session: of the replica; alone it has no hub.

    Raises:
        Infeasible: B811 when the hub alone takes all of it.
    """
    shared = [d for d in cluster.devices if d.backend == "cpu"]
    if session.hub is None or session.options is None or not shared:
        return cluster
    shared = [d for d in shared if d.host == shared[0].host]
    taken = hub_copies(session.options) * model_bytes(graph, buffers=session.buffers)
    room = sum(d.cap for d in shared)
    if taken >= room:
        what = f"a replica's exchange takes {format_bytes(taken)} of the host's memory, its devices have {format_bytes(room)}"
        raise Infeasible("B811", what, help="give the devices more memory, or place on others", proved=True)
    left = {d.name: d.cap - -(-taken * d.cap // room) for d in shared}
    devices = tuple(replace(d, memory_bytes=left[d.name]) if d.name in left else d for d in cluster.devices)
    return replace(cluster, devices=devices)
