"""Who has which examples: all alike, or each with classes of its own; equally many, or not."""

import torch
from torch import Tensor

from baechi.errors import BaechiError
from baechi.replicas.problems.base import generator

__all__ = ["PARTITIONS", "partition"]

PARTITIONS = ("iid", "dirichlet", "sorted")


def partition(how: str, labels: Tensor, workers: int, seed: int, alpha: float = 0.1, skew: float = 0.0) -> list[Tensor]:
    """Split examples among workers.

    Args:
        how: `iid`; `dirichlet`, each worker's classes in random shares; or `sorted`, by class and cut.
        labels: of the examples, (examples,).
        workers: how many.
        seed: of the split.
        alpha: of the Dirichlet distribution: the smaller, the fewer classes a worker sees.
        skew: the workers' numbers of examples are as exp(skew N(0, 1)), and at least 1; 0 is all about equally many.

    Returns:
        For each worker the indices of its examples; each example is in one.

    Raises:
        BaechiError: B820 when there is no such way, or no example for somebody.

    Example:
        >>> [part.tolist() for part in partition("sorted", torch.tensor([1, 0, 1, 0]), 2, seed=0)]
        [[1, 3], [0, 2]]
    """
    if how not in PARTITIONS:
        raise BaechiError("B820", f"no partition '{how}'", help="one of: " + ", ".join(PARTITIONS))
    if not 1 <= workers <= len(labels):
        raise BaechiError("B820", f"{len(labels)} examples for {workers} workers", help="give each at least one")
    if not 0 <= skew < float("inf"):
        raise BaechiError("B820", f"skew {skew:g} of a partition", help="at least 0")
    sizes = _sizes(len(labels), workers, seed, skew)
    if how == "sorted":
        return list(torch.split(torch.argsort(labels, stable=True), sizes))
    shuffled = torch.randperm(len(labels), generator=generator(seed, workers))
    if how == "iid":
        return list(torch.split(shuffled, sizes))
    if alpha <= 0:
        raise BaechiError("B820", f"alpha {alpha:g} of a Dirichlet partition is not positive")
    return _dirichlet(labels, shuffled, sizes, seed, alpha)


def _sizes(examples: int, workers: int, seed: int, skew: float) -> list[int]:
    """By worker: one each, and of the others its share, rounded so that the sum is right."""
    drawn = torch.randn(workers, generator=generator(seed, workers, 3), dtype=torch.float64)
    shares = torch.softmax(skew * drawn, 0) * (examples - workers)
    sizes = 1 + shares.long()
    most = torch.argsort(shares.frac(), descending=True, stable=True)[: examples - int(sizes.sum())]
    sizes[most] += 1
    return [int(size) for size in sizes]


def _dirichlet(labels: Tensor, order: Tensor, sizes: list[int], seed: int, alpha: float) -> list[Tensor]:
    """Each worker, in turn, takes one example of a class drawn from its own shares, while the class lasts."""
    workers = len(sizes)
    classes = int(labels.max()) + 1
    left = [order[labels[order] == c].tolist() for c in range(classes)]
    gamma = torch._standard_gamma(torch.full((workers, classes), alpha).double(), generator=generator(seed, workers, 1))
    shares = (gamma + 1e-12) / (gamma + 1e-12).sum(1, keepdim=True)
    stream = generator(seed, workers, 2)
    parts: list[list[int]] = [[] for _ in range(workers)]
    for worker in (i for turn in range(max(sizes)) for i in range(workers) if turn < sizes[i]):
        some = shares[worker] * torch.tensor([float(bool(rest)) for rest in left]).double()
        if float(some.sum()) == 0.0:
            some = torch.tensor([float(len(rest)) for rest in left]).double()
        parts[worker].append(left[int(torch.multinomial(some, 1, generator=stream))].pop())
    return [torch.tensor(part) for part in parts]
