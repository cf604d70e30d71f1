"""Whose memory a tensor lies in."""

from baechi.ir.graph import Graph

__all__ = ["storage"]


def storage(graph: Graph) -> dict[str, str]:
    """By tensor, the tensor at the end of its chain of `Tensor.alias_of`: the one that owns the memory.

    Example:
        >>> from baechi.ir.op import Op, Tensor
        >>> a = Op("a", "input", outputs=(Tensor("x", 8),))
        >>> storage(Graph((a, Op("b", "aten.t", inputs=("x",), outputs=(Tensor("y", 8, alias_of="x"),)))))
        {'x': 'x', 'y': 'x'}
    """
    bases: dict[str, str] = {}
    for name in graph.tensor:
        chain = {name: None}  # a dict, because a chain that bites its own tail must still end
        while (base := graph.tensor[name].alias_of) is not None and base not in chain and name not in bases:
            chain[base] = None
            name = base
        owner = bases.get(name, name)
        bases |= dict.fromkeys(chain, owner)
    return bases
