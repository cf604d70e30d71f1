"""Write a plan's devices into the graph of a captured step."""

from collections.abc import Mapping

from tensorflow.core.framework.graph_pb2 import GraphDef

from baechi.errors import BaechiError
from baechi.frontends.tf.program import TensorFlowProgram
from baechi.ir.plan import Plan

__all__ = ["GIVEN", "placed_graph"]

GIVEN = "baechi/given/"
"""Before the names of placeholders that stand for what the step is called with."""


def placed_graph(program: TensorFlowProgram, plan: Plan, devices: Mapping[str, str]) -> GraphDef:
    """The graph of the step, each node on its op's device.

    A placeholder of a tensor becomes an ``Identity`` on the device that the plan gives that input, behind
    a placeholder ``baechi/given/NAME``: from there it goes to whoever reads it, as planned. Those of
    resources stay: they are mapped to handles.

    Args:
        program: the step.
        plan: for its graph.
        devices: TensorFlow's name of each device of the plan.

    Raises:
        BaechiError: B603 when the plan is for another graph.
    """
    if plan.graph != program.graph.digest:
        raise BaechiError(
            "B603",
            f"the plan is for graph {plan.graph}, the step is {program.graph.digest}",
            help="place the step again",
        )
    placed = GraphDef(library=program.graph_def.library, versions=program.graph_def.versions)
    tensors = {n for n in (*program.inputs, *program.captures) if n is not None and n not in program.variables}
    for node in program.graph_def.node:
        copy = placed.node.add()
        copy.CopyFrom(node)
        op = program.op_of.get(node.name)
        if op is not None:
            copy.device = devices[plan.device[op]]
        if node.name in tensors:
            given = placed.node.add()
            given.CopyFrom(node)
            given.name, given.device = GIVEN + node.name, ""
            dtype = node.attr["dtype"]
            copy.op = "Identity"
            copy.ClearField("attr")
            copy.ClearField("input")
            copy.attr["T"].CopyFrom(dtype)
            copy.input.append(given.name)
    return placed
