"""What a pass is, and the contract that is checked after each."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from baechi.errors import BaechiError
from baechi.ir.graph import Graph

__all__ = ["Pass", "Pipeline", "run", "violations"]


@runtime_checkable
class Pass(Protocol):
    """A named step from one graph to another: a frozen dataclass whose fields are its options."""

    @property
    def name(self) -> str:
        """What errors and reports call the pass."""

    def __call__(self, graph: Graph) -> Graph:
        """The new graph; the given one is unchanged."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Several passes as one."""

    name: ClassVar[str] = "pipeline"
    passes: tuple[Pass, ...]

    def __call__(self, graph: Graph) -> Graph:
        return run(graph, self.passes)


def run(graph: Graph, passes: Iterable[Pass]) -> Graph:
    """Run passes in turn and check the contract after each.

    Raises:
        BaechiError: B208 when a pass breaks the contract; the message lists every breach.
    """
    for one in passes:
        after = one(graph)
        found = violations(graph, after)
        if found:
            raise BaechiError(
                "B208", f"pass '{one.name}' broke the graph: " + "; ".join(found), help="this is a bug in the pass"
            )
        graph = after
    return graph


def violations(before: Graph, after: Graph) -> tuple[str, ...]:
    """Everything in which `after` breaks the contract of a pass; that it is acyclic, `Graph` has checked.

    The contract: no op is invented, what stays reads and makes what it did, no result and no
    persistent byte is lost, and what shared a colocation group still shares one.
    """
    return tuple(found for rule in (_ops, _results, _persistent, _groups) for found in rule(before, after))


def _ops(before: Graph, after: Graph) -> Iterator[str]:
    for op in after.ops:
        was = before.op.get(op.name)
        if was is None:
            yield f"op '{op.name}' is new"
        elif was.inputs != op.inputs:
            yield f"op '{op.name}' has other inputs"
        elif [(t.name, t.nbytes) for t in was.outputs] != [(t.name, t.nbytes) for t in op.outputs]:
            yield f"op '{op.name}' has other outputs"


def _results(before: Graph, after: Graph) -> Iterator[str]:
    for name, tensor in before.tensor.items():
        if tensor.keep and (name not in after.tensor or not after.tensor[name].keep):
            yield f"result '{name}' is lost"


def _persistent(before: Graph, after: Graph) -> Iterator[str]:
    was, now = (sum(op.persistent_bytes for op in g.ops) for g in (before, after))
    if was != now:
        yield f"persistent bytes were {was} and are {now}"


def _groups(before: Graph, after: Graph) -> Iterator[str]:
    now: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for op in after.ops:
        if op.name in before.op:
            now[before.group_of(before.op[op.name])][after.group_of(op)] = None
    for group, parts in now.items():
        if len(parts) > 1:
            yield f"colocation group '{group}' is split"
