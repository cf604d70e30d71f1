"""Colocation groups: sets of ops that grow together."""

from collections.abc import Iterable, Mapping

from baechi.ir.op import Op

__all__ = ["Groups"]


class Groups:
    """Disjoint sets of ops.

    Args:
        ops: by name, in program order.
    """

    def __init__(self, ops: Mapping[str, Op]) -> None:
        self.ops = ops
        self.parent = {name: name for name in ops}

    def find(self, name: str) -> str:
        """The op that stands for a set."""
        while self.parent[name] != name:
            self.parent[name] = self.parent[self.parent[name]]
            name = self.parent[name]
        return name

    def join(self, names: Iterable[str]) -> None:
        """Make one set of the sets of all these."""
        first, *rest = (self.find(n) for n in names)
        for other in rest:
            self.parent[self.find(other)] = self.find(first)

    def join_updates(self) -> None:
        """The optimiser's ops of one parameter, its slots included, are one set, as one fused kernel would be.

        They are found by the tensors that flow between them; a scalar, such as the learning rate or a
        norm over all gradients, joins nothing.
        """
        maker = {t.name: op for op in self.ops.values() for t in op.outputs}
        for op in self.ops.values():
            if op.phase != "update":
                continue
            for name in op.inputs:
                source = maker[name]
                optimiser = source.phase == "update" or source.kind in ("parameter", "buffer")
                if optimiser and self.tensor_rank(source, name):
                    self.join([op.name, source.name])

    @staticmethod
    def tensor_rank(op: Op, name: str) -> int:
        """Number of dimensions of one of an op's results."""
        return next(len(t.shape) for t in op.outputs if t.name == name)

    def labels(self, variables: Iterable[str]) -> dict[str, str]:
        """By op in a set of at least two, the set's name: ``v:`` and its first parameter's, or its first op's.

        Without a parameter its first variable's is taken.
        """
        members: dict[str, list[str]] = {}
        for name in self.ops:
            members.setdefault(self.find(name), []).append(name)
        owners = set(variables)
        labels: dict[str, str] = {}
        for names in members.values():
            if len(names) > 1:
                mine = [n for n in names if n in owners]
                owner = next((n for n in mine if self.ops[n].kind == "parameter"), next(iter(mine), None))
                label = names[0] if owner is None else f"v:{owner}"
                labels |= dict.fromkeys(names, label)
        return labels
