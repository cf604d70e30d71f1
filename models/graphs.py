"""Graphs without a framework: those of the paper, regular ones, and random ones.

They declare `Op.seconds` on a device of speed 1 and, where not said otherwise, `Tensor.seconds` per transfer.
"""

from collections.abc import Mapping

from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.models._gen_dag import DAG_KINDS, dag, dag_data, from_gen_dag
from baechi.models._random_dag import random_dag
from baechi.models._stg import STG_SHAPES, STG_TIMES, stg, stg_text
from baechi.models.base import at_least

__all__ = [
    "DAG_KINDS",
    "STG_SHAPES",
    "STG_TIMES",
    "chain",
    "dag",
    "dag_data",
    "figure_2",
    "figure_21",
    "fork_join",
    "from_gen_dag",
    "hanen_munier",
    "paper_figure_1",
    "random_dag",
    "stg",
    "stg_text",
]


def paper_figure_1() -> Graph:
    """Figure 1 of the paper: six ops, each transfer 1 second, memory in units of 1 byte.

    On two devices the makespan is 8 seconds with unlimited memory, 9 with 4 bytes each.
    Favourite children: op1 -> op2 -> op3 -> op4 and op5 -> op6.

    Example:
        >>> sum(op.persistent_bytes for op in paper_figure_1().ops)
        8
    """
    return _drawn(
        "figure_1",
        {"op1": (1, 1), "op2": (3, 2), "op3": (3, 2), "op4": (1, 1), "op5": (3, 1), "op6": (1, 1)},
        {
            ("op1", "op2"): 1,
            ("op1", "op5"): 1,
            ("op2", "op3"): 1,
            ("op3", "op4"): 1,
            ("op5", "op6"): 1,
            ("op6", "op4"): 1,
        },
    )


def figure_2() -> Graph:
    """Four ops where to leave a device idle is better: m-ETF needs 14 seconds on two devices."""
    return _drawn(
        "figure_2",
        {"op0": (5, 0), "op1": (4, 0), "op2": (7, 0), "op3": (4, 0)},
        {("op0", "op2"): 1, ("op1", "op2"): 3, ("op1", "op3"): 1},
    )


def figure_21() -> Graph:
    """Six ops: m-ETF needs 22 seconds on two devices, 20 on three."""
    return _drawn(
        "figure_21",
        {"op0": (9, 0), "op1": (9, 0), "op2": (8, 0), "op3": (5, 0), "op4": (6, 0), "op5": (4, 0)},
        {("op0", "op2"): 2, ("op1", "op2"): 3, ("op1", "op3"): 1, ("op4", "op5"): 3},
    )


def hanen_munier() -> Graph:
    """The nine ops of Hanen and Munier: m-ETF needs 36 seconds on two devices, 29 on three.

    On two devices Baechi's PyTorch version needs 38: there a tie goes to the op that was ready
    earlier, not to the earlier op.
    """
    seconds = (6, 7, 9, 8, 10, 6, 6, 10, 6)
    edges = {(0, 2): 1, (0, 3): 5, (0, 4): 2, (1, 2): 1, (1, 3): 1, (1, 4): 1}
    edges |= {(2, 5): 5, (2, 6): 3, (3, 5): 4, (3, 6): 1, (3, 7): 5, (4, 8): 1}
    return _drawn(
        "hanen_munier",
        {f"op{i}": (k, 0) for i, k in enumerate(seconds)},
        {(f"op{i}", f"op{j}"): c for (i, j), c in edges.items()},
    )


def _drawn(name: str, ops: Mapping[str, tuple[int, int]], edges: Mapping[tuple[str, str], int]) -> Graph:
    """A graph from (seconds, bytes) of each op and seconds of each edge: one tensor an edge."""

    def op(name: str) -> Op:
        outputs = tuple(Tensor(f"{a}.{b}", seconds=float(c)) for (a, b), c in edges.items() if a == name)
        inputs = tuple(f"{a}.{b}" for a, b in edges if b == name)
        seconds, nbytes = ops[name]
        return Op(name, "op", inputs, outputs, seconds=float(seconds), persistent_bytes=nbytes)

    return Graph(tuple(op(name) for name in ops), name)


def chain(n: int, *, seconds: float = 1e-3, nbytes: int = 1024, transfer_seconds: float | None = 1e-4) -> Graph:
    """`n` ops in a row.

    Args:
        n: number of ops.
        seconds: time of each.
        nbytes: size of what each makes.
        transfer_seconds: time to move that; None leaves it to the link.
    """
    at_least(1, n=n)
    return _regular(f"chain_{n}", [(i - 1,) if i else () for i in range(n)], seconds, nbytes, transfer_seconds)


def fork_join(
    width: int,
    depth: int,
    *,
    blocks: int = 1,
    seconds: float = 1e-3,
    nbytes: int = 1024,
    transfer_seconds: float | None = 1e-4,
) -> Graph:
    """One op, `width` chains of `depth` ops that read it, one op that joins them; `blocks` times in a row.

    A block's join is the next block's fork: ``blocks * (width * depth + 1) + 1`` ops.
    """
    at_least(1, width=width, depth=depth, blocks=blocks)
    before: list[tuple[int, ...]] = [()]
    for _ in range(blocks):
        fork, ends = len(before) - 1, []
        for _ in range(width):
            before += [(fork,), *((i,) for i in range(len(before), len(before) + depth - 1))]
            ends.append(len(before) - 1)
        before.append(tuple(ends))
    return _regular(f"fork_join_{width}x{depth}x{blocks}", before, seconds, nbytes, transfer_seconds)


def _regular(
    name: str, before: list[tuple[int, ...]], seconds: float, nbytes: int, transfer_seconds: float | None
) -> Graph:
    ops = (
        Op(
            f"op{i}",
            "op",
            tuple(f"op{j}.0" for j in inputs),
            (Tensor(f"op{i}.0", nbytes, seconds=transfer_seconds),),
            seconds=seconds,
        )
        for i, inputs in enumerate(before)
    )
    return Graph(tuple(ops), name)
