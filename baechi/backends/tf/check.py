"""Compare what TensorFlow ran with the plan."""

from collections.abc import Iterable, Mapping
from typing import Any

from tensorflow.core.framework.graph_pb2 import GraphDef

from baechi.errors import BaechiError

__all__ = ["check_partitions", "moved"]


def moved(graphs: Iterable[Any], placed: GraphDef) -> dict[str, tuple[str, str]]:
    """Nodes that ran on another device than they were placed on: by name, the planned and the actual device.

    Args:
        graphs: the partition graphs of a step.
        placed: as it was handed to TensorFlow. A node of it that TensorFlow left out or made itself is no
            concern; one that it renamed is none of the plan.
    """
    planned = {node.name: node.device for node in placed.node if node.device}
    found: dict[str, tuple[str, str]] = {}
    for graph in graphs:
        for node in graph.node:
            wanted = planned.get(node.name)
            if wanted is not None and not node.op.startswith(("_", "Const")) and node.device != wanted:
                found[node.name] = (wanted, node.device)
    return found


def check_partitions(
    graphs: Iterable[Any], placed: GraphDef, op_of: Mapping[str, str], device_of: Mapping[str, str]
) -> None:
    """Refuse a step that TensorFlow ran in another way than it was placed.

    Args:
        graphs, placed: as for `moved`.
        op_of: by node, its op.
        device_of: by TensorFlow's name of a device, that of the plan.

    Raises:
        BaechiError: B621 naming the first op that was moved.
    """
    wrong = moved(graphs, placed)
    if not wrong:
        return
    node, (wanted, actual) = next(iter(wrong.items()))
    others = f", and {len(wrong) - 1} others" if len(wrong) > 1 else ""
    raise BaechiError(
        "B621",
        f"TensorFlow ran op '{op_of.get(node, node)}' on {device_of.get(actual, actual)}, "
        f"it was placed on {device_of.get(wanted, wanted)}{others}",
        help="ops on one resource must be in one colocation group: place the step again, or report this",
    )
