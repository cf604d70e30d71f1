"""The functions of a graph, and the kinds of ops that no plan can place."""

from collections.abc import Iterable
from itertools import chain

from tensorflow.core.framework.function_pb2 import FunctionDefLibrary
from tensorflow.core.framework.node_def_pb2 import NodeDef

from baechi.errors import BaechiError
from baechi.frontends.tf.control import body_names

__all__ = ["called_functions", "check_kinds"]

_PYTHON = ("EagerPyFunc", "PyFunc", "PyFuncStateless")
_OLD = (
    "Enter",
    "Exit",
    "LoopCond",
    "Merge",
    "NextIteration",
    "RefEnter",
    "RefSwitch",
    "Switch",
    "Variable",
    "VariableV2",
)
_OUTSIDE = ("AnonymousIterator", "IteratorGetNext", "MakeIterator", "OneShotIterator", "IteratorV2", "TPUReplicate")


def called_functions(library: FunctionDefLibrary, nodes: Iterable[NodeDef]) -> FunctionDefLibrary:
    """The functions that loops and branches still call."""
    known = {f.signature.name: f for f in library.function}
    gradients = {g.function_name: g.gradient_func for g in library.gradient}
    needed: dict[str, None] = {}
    stack = [name for node in nodes for name in body_names(node)]
    while stack:
        name = stack.pop()
        if name in needed or name not in known:
            continue
        needed[name] = None
        stack.extend(called for node in known[name].node_def for called in (*body_names(node), node.op))
        stack.extend([gradients[name]] if name in gradients else [])
    kept = FunctionDefLibrary(function=[f for n, f in known.items() if n in needed])
    kept.gradient.extend(g for g in library.gradient if g.function_name in needed)
    return kept


def check_kinds(nodes: Iterable[NodeDef], library: FunctionDefLibrary) -> None:
    """Refuse what cannot be placed, in the graph and in its functions.

    Raises:
        BaechiError: B715 on calls of Python code, B716 on what belongs to a device, a host or to TensorFlow 1.
    """
    inner = (node for function in library.function for node in function.node_def)
    for node in chain(nodes, inner):
        if node.op in _PYTHON:
            raise BaechiError(
                "B715",
                f"the step calls Python code as it runs ({node.op} '{node.name}')",
                help="write it with TensorFlow's own ops instead of tf.py_function or tf.numpy_function",
            )
        if node.op in _OUTSIDE or node.op in _OLD or node.op.startswith(("Collective", "Nccl", "XlaLaunch")):
            what = (
                "is control flow or a variable of TensorFlow 1" if node.op in _OLD else "belongs to one device or host"
            )
            raise BaechiError(
                "B716",
                f"op {node.op} '{node.name}' {what}, so the step cannot be placed",
                help="give the step tensors, not an iterator, and use TensorFlow 2's tf.function without a tf.distribute strategy",
            )
