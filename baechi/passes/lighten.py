"""What is recomputed and offloaded, as data; and what a name pattern of modules stands for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from baechi.errors import BaechiError
from baechi.ir.graph import Graph
from baechi.ir.op import Op
from baechi.passes.offload import offload
from baechi.passes.recompute import recompute, repeatable
from baechi.passes.storage import storage

__all__ = ["Lighten", "in_modules"]


@dataclass(frozen=True, slots=True)
class Lighten:
    """Recompute some ops and offload some tensors.

    Args:
        recompute: names of forward ops, as for `recompute`.
        offload: names of tensors, as for `offload`.
    """

    recompute: tuple[str, ...] = ()
    offload: tuple[str, ...] = ()

    @classmethod
    def of(cls, target: Mapping[str, Any]) -> "Lighten":
        """What the description of a saved plan's target says was done."""
        return cls(tuple(target.get("recompute", ())), tuple(target.get("offload", ())))

    @property
    def described(self) -> dict[str, list[str]]:
        """The same as plain data; nothing when nothing is done."""
        both = (("recompute", self.recompute), ("offload", self.offload))
        return {key: list(names) for key, names in both if names}

    def __call__(self, graph: Graph) -> Graph:
        """The new graph; its description of its target (``meta``) says how it was made."""
        if not (self.recompute or self.offload):
            return graph
        lighter = offload(recompute(graph, self.recompute), self.offload)
        target = {"name": graph.name, **graph.meta.get("target", {}), **self.described}
        return Graph(lighter.ops, lighter.name, {**lighter.meta, "target": target})


def in_modules(graph: Graph, pattern: str) -> tuple[str, ...]:
    """The ops to recompute so that of each module that a pattern names only what leaves it is kept.

    Args:
        graph: the step, with module paths.
        pattern: a path with ``*`` and ``?``, such as ``encoder.layers.*``; modules inside belong to it.

    Raises:
        BaechiError: B112 when no module has such a path.
    """
    depth = pattern.count(".") + 1

    def owner(op: Op) -> str:
        head = ".".join(op.module.split(".")[:depth])
        return head if op.phase == "forward" and op.module and fnmatchcase(head, pattern) else ""

    owners = {op.name: owner(op) for op in graph.ops}
    if not any(owners.values()):
        raise BaechiError(
            "B112",
            f"no module is called '{pattern}'",
            help="write auto, off, or a path such as " + next(iter(_paths(graph, depth)), "layers.*"),
        )
    bases = storage(graph)
    leaving = {
        graph.producer[bases[name]].name
        for op in graph.ops
        if op.phase == "forward"
        for name in op.inputs
        if owners[op.name] != owners[graph.producer[bases[name]].name]
    }
    known = repeatable(graph)
    return tuple(op.name for op in graph.ops if owners[op.name] and op.name in known and op.name not in leaving)


def _paths(graph: Graph, depth: int) -> Iterable[str]:
    return dict.fromkeys(".".join(op.module.split(".")[:depth]) for op in graph.ops if op.module)
