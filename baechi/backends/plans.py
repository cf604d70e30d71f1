"""A plan from a placement alone: program order, each tensor sent when it is first needed."""

from collections.abc import Mapping

from baechi.ir.cluster import UNLIMITED_BYTES, Cluster, Device
from baechi.ir.graph import Graph
from baechi.ir.plan import Bounds, Placed, Plan, Prediction, TransferKey

__all__ = ["plan_in_program_order"]


def plan_in_program_order(graph: Graph, device: Mapping[str, str], cluster: Cluster | None = None) -> Plan:
    """Run a given placement without a simulator: to profile, and to test.

    Args:
        device: device name by op name.
        cluster: the devices; by default CPU devices of those names without a cap to speak of.

    Example:
        >>> from baechi.ir.op import Op, Tensor
        >>> ops = (Op("a", "input", outputs=(Tensor("x", 8),)), Op("b", "relu", inputs=("x",)))
        >>> plan_in_program_order(Graph(ops), {"a": "cpu:0", "b": "cpu:1"}).transfers
        (('x', 'cpu:0', 'cpu:1'),)
    """
    names = tuple(sorted(set(device.values()))) if cluster is None else tuple(cluster.device)
    order: dict[str, list[str]] = {name: [] for name in names}
    transfers: dict[TransferKey, None] = {}
    for op in (graph.ops[i] for i in graph.order):
        order[device[op.name]].append(op.name)
        for tensor in op.inputs:
            source = device[graph.producer[tensor].name]
            if source != device[op.name]:
                transfers[tensor, source, device[op.name]] = None
    return Plan(
        graph=graph.digest,
        target={},
        cluster=cluster or Cluster(tuple(Device(name, UNLIMITED_BYTES) for name in names)),
        placer=Placed("fixed"),
        device=dict(device),
        order={name: tuple(ops) for name, ops in order.items()},
        transfers=tuple(transfers),
        predicted=Prediction(0.0, {}),
        bounds=Bounds(),
    )
