"""Small random graphs with every oddity that a placer or a simulator must survive."""

import random
from dataclasses import replace

from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.models.base import at_least

__all__ = ["random_dag"]

_LONGEST_US = 200
_LARGEST_BYTES = 1000


def random_dag(
    seed: int,
    n: int,
    *,
    groups: bool = False,
    zero_cost: float = 0.2,
    aliases: bool = True,
    declared: bool = True,
    shuffled: bool = False,
    reach: int = 12,
) -> Graph:
    """A random graph to test with; costs are whole microseconds and bytes.

    Among its ops: parameters, ops without inputs, with up to three outputs, without outputs, with
    control dependencies, and isolated ones; among its tensors: empty ones, views, unread ones, results.

    Args:
        seed: of the random numbers.
        n: number of ops.
        groups: put two fifths of the ops into colocation groups, wherever they are in the graph.
        zero_cost: share of ops that take no time.
        aliases: whether some tensors are views of an input of their op.
        declared: whether transfers declare their time; the link says it otherwise.
        shuffled: put the ops into random program order rather than a topological one.
        reach: how many ops back an op reads.

    Example:
        >>> random_dag(1, 30).digest == random_dag(1, 30).digest
        True
    """
    at_least(1, n=n, reach=reach)
    r = random.Random(seed)
    ops: list[Op] = []
    for i in range(n):
        op = _parameter(r, i) if r.random() < 0.1 else _compute(r, i, ops[-reach:], zero_cost, aliases)
        if not declared:
            op = replace(op, outputs=tuple(replace(t, seconds=None) for t in op.outputs))
        ops.append(op)
    if groups:
        ops = [replace(op, group=f"group{r.randrange(n // 6 + 1)}") if r.random() < 0.4 else op for op in ops]
    if shuffled:
        r.shuffle(ops)
    return Graph(tuple(ops), f"random_{seed}_{n}")


def _parameter(r: random.Random, i: int) -> Op:
    nbytes = r.randint(1, _LARGEST_BYTES)
    tensor = Tensor(f"op{i}.0", nbytes, held=nbytes, seconds=_seconds(r))
    return Op(f"op{i}", "parameter", outputs=(tensor,), persistent_bytes=nbytes * r.randint(1, 4), seconds=0.0)


def _compute(r: random.Random, i: int, near: list[Op], zero_cost: float, aliases: bool) -> Op:
    pool = [t for op in near for t in op.outputs]
    read = r.sample(pool, min(len(pool), r.choice([0, 1, 1, 2, 2, 3])))
    outputs = []
    for k in range(r.choice([0, 1, 1, 1, 1, 1, 2, 3])):
        nbytes = 0 if r.random() < 0.15 else r.randint(1, _LARGEST_BYTES)
        tensor = Tensor(f"op{i}.{k}", nbytes, seconds=_seconds(r), keep=r.random() < 0.05)
        if aliases and read and r.random() < 0.15:
            base = r.choice(read)
            tensor = replace(tensor, nbytes=min(nbytes, base.nbytes), alias_of=base.name)
        outputs.append(tensor)
    return Op(
        f"op{i}",
        "op",
        tuple(t.name for t in read),
        tuple(outputs),
        after=(r.choice(near).name,) if near and r.random() < 0.08 else (),
        seconds=0.0 if r.random() < zero_cost else r.randint(1, _LONGEST_US) / 10**6,
        temp_bytes=r.choice([0, 0, 0, r.randint(1, _LARGEST_BYTES)]),
        persistent_bytes=r.choice([0, 0, 0, r.randint(1, _LARGEST_BYTES)]),
    )


def _seconds(r: random.Random) -> float:
    return r.choice([0, r.randint(1, _LONGEST_US), r.randint(1, _LONGEST_US)]) / 10**6
