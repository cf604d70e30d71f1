"""The greatest eigenvalue of a loss's Hessian, by Lanczos' iteration with Hessian-vector products.

The Hessian is never formed: its product with a vector is the gradient of the gradient's product with it. Lanczos' is
power iteration that makes use of all products until then, which takes a few of them where that takes hundreds; it
keeps two vectors, so its copies of eigenvalues long found, which do no harm here, are not kept out.

Sources: Pearlmutter, "Fast exact multiplication by the Hessian" (Neural Computation, 1994); Paige, "Computational
variants of the Lanczos method" (1972).
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from baechi.errors import BaechiError
from baechi.frontends.pytorch.batches import split_inputs
from baechi.frontends.pytorch.modules import evaluate_loss
from baechi.jobs.pytorch import TorchJob

if TYPE_CHECKING:
    from baechi.target import Target

__all__ = ["Sharpness", "few_examples", "gradient_seconds", "hessian_norm", "target_sharpness"]

Product = Callable[[list[Tensor]], list[Tensor]]

_PLACES = 200  # at which a convolution uses a weight, by order of magnitude
_WORK = 2e10  # parameters times examples, or times tokens
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Sharpness:
    """How sharply a loss curves.

    Attributes:
        curvature: the greatest eigenvalue of its Hessian.
        products: Hessian-vector products that it took.
        error: the eigenvalue is this near to one of the Hessian, as a fraction: ``|H v - c v| / |c|``.
    """

    curvature: float
    products: int
    error: float


def hessian_norm(
    loss_fn: Callable[[], Tensor],
    params: Sequence[Tensor],
    *,
    products: int = 100,
    tolerance: float = 1e-2,
    seconds: float = math.inf,
    seed: int = 0,
) -> Sharpness:
    """Find the greatest eigenvalue of a loss's Hessian at the present parameters.

    It begins with the gradient and a random vector, for the gradient leans to where the loss curves most.

    Args:
        loss_fn: computes the loss, a scalar; called once.
        params: what it is a function of; they are not changed.
        products: the most Hessian-vector products, at least 2.
        tolerance: on the error of `Sharpness` at which it stops; the eigenvalue itself is then nearer by far.
        seconds: begin no product after so long.
        seed: of the random vector.

    Raises:
        BaechiError: B853 when the loss is no finite scalar of the parameters, or cannot be differentiated twice.

    Example:
        >>> x = torch.ones(2, requires_grad=True)
        >>> found = hessian_norm(lambda: (torch.tensor([1.0, 3.0]) * x**2).sum() / 2, [x])
        >>> round(found.curvature, 3)
        3.0
    """
    end = time.monotonic() + seconds
    product, slope = _products(loss_fn, params)
    random = torch.Generator().manual_seed(seed)
    start = _unit([torch.randn(p.shape, generator=random, dtype=p.dtype).to(p) for p in params])
    if _dot(slope, slope) > 0:
        start = [r + g for r, g in zip(start, _unit(slope), strict=True)]
    return _lanczos(product, start, products, tolerance, end)


def target_sharpness(
    target: "Target",
    *,
    seed: int = 0,
    products: int = 100,
    tolerance: float = 1e-2,
    seconds: float = math.inf,
    examples: int | None = None,
) -> Sharpness:
    """`hessian_norm` of a target's loss on its example batch, with fresh weights; on this machine's processor.

    Args:
        target: a PyTorch model with a loss, not a file.
        seed: of weights, dropout and the first vector.
        products, tolerance, seconds: as for `hessian_norm`.
        examples: how many of the batch, the first ones; all when None. The loss of fewer curves more, if anything.

    Raises:
        BaechiError: B603 for a file; B853 when it has no loss, is of another
            framework, or the batch is no multiple of `examples`, or as `hessian_norm`.
    """
    loss, trained = _loss_of(target, seed, examples)
    return hessian_norm(loss, trained, products=products, tolerance=tolerance, seconds=seconds, seed=seed)


def few_examples(target: "Target") -> int | None:
    """So many examples of a target's batch that a Hessian-vector product takes some seconds; None when all do.

    Errors as `target_sharpness`.
    """
    job = _job_of(target)
    with torch.device("meta"):
        size = sum(p.numel() for p in job.build().parameters() if p.requires_grad)
    batch = _batch_of(job)
    first = next((t for t in pytree.tree_leaves(job.inputs) if isinstance(t, Tensor) and t.dim()), torch.empty(1))
    places = _PLACES if first.dim() > 2 else 1
    tokens = places if first.is_floating_point() else first[0].numel()
    fit = [n for n in range(1, batch + 1) if batch % n == 0 and n * size * tokens <= _WORK]
    found = max(fit, default=1)
    return None if found >= batch else found


def gradient_seconds(
    target: "Target",
    *,
    count: int,
    warmup: int = 2,
    seed: int = 0,
    examples: int | None = None,
    seconds: float = math.inf,
) -> list[float]:
    """Times of a target's gradient on its example batch here, in seconds; arguments and errors as `target_sharpness`.

    Those of fewer examples are stretched to the whole batch. Fewer than `count` are timed, but one, where that takes longer
    than `seconds`.
    """
    loss, trained = _loss_of(target, seed, examples)
    stretch = 1.0 if examples is None else _batch_of(_job_of(target)) / examples
    found: list[float] = []
    end = time.monotonic() + seconds
    while len(found) < warmup + count and (time.monotonic() < end or not found):
        began = time.perf_counter()
        torch.autograd.grad(loss(), trained, materialize_grads=True)
        found.append(stretch * (time.perf_counter() - began))
    return found[warmup:] or found[-1:]


def _batch_of(job: TorchJob) -> int:
    """How many examples there are: the first dimension of the first input that has one."""
    return next((t.shape[0] for t in pytree.tree_leaves(job.inputs) if isinstance(t, Tensor) and t.dim()), 1)


def _job_of(target: "Target") -> TorchJob:
    job = target.code
    if not isinstance(job, TorchJob) or job.loss is None:
        what = f"'{target.name}' is no PyTorch model with a loss"
        raise BaechiError("B853", what, help="give --curvature H and --delay LAW instead")
    return job


def _loss_of(target: "Target", seed: int, examples: int | None = None) -> tuple[Callable[[], Tensor], list[Tensor]]:
    """A target's loss with fresh weights, and these."""
    job = _job_of(target)
    torch.manual_seed(seed)
    module = job.build()
    inputs = job.inputs
    if examples is not None:
        count, rest = divmod(_batch_of(job), examples)
        if rest or not count:
            what = f"{examples} examples are no equal part of a batch of {_batch_of(job)}"
            raise BaechiError("B853", what, help="give a number that divides it")
        inputs = split_inputs(inputs, count, job.loss)[0]

    def loss() -> Tensor:
        output = module(*inputs[0], **inputs[1])
        return evaluate_loss(job.loss, output, *inputs[2:] or (None,), with_target=job.target is not None)

    return loss, [p for p in module.parameters() if p.requires_grad]


def _products(loss_fn: Callable[[], Tensor], params: Sequence[Tensor]) -> tuple[Product, list[Tensor]]:
    """The Hessian as a function of a vector, and the gradient; fused attention has no second derivative, its plain form has."""
    with sdpa_kernel(SDPBackend.MATH):
        loss = loss_fn()
    if not (loss.numel() == 1 and loss.requires_grad and bool(torch.isfinite(loss).all())):
        raise BaechiError("B853", "the loss is no finite number that depends on the parameters")
    try:
        slope = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    except RuntimeError as error:
        raise _not_twice(error) from None
    curved = [g for g in slope if g.requires_grad]

    def product(v: list[Tensor]) -> list[Tensor]:
        along = [x for g, x in zip(slope, v, strict=True) if g.requires_grad]
        if not curved:
            return [torch.zeros_like(x) for x in v]
        try:
            found = torch.autograd.grad(curved, params, along, retain_graph=True, materialize_grads=True)
        except RuntimeError as error:
            raise _not_twice(error) from None
        return list(found)

    return product, [g.detach() for g in slope]


def _lanczos(product: Product, start: list[Tensor], products: int, tolerance: float, end: float) -> Sharpness:
    """The greatest eigenvalue of the tridiagonal matrix T of the products; that of H is within beta_k |s_k| of it."""
    v, before = _unit(start), [torch.zeros_like(x) for x in start]
    diagonal: list[float] = []
    beside: list[float] = []
    found = Sharpness(0.0, 0, math.inf)
    for count in range(1, products + 1):
        moved = product(v)
        alpha = _dot(v, moved)
        last = beside[-1] if beside else 0.0
        moved = [m.sub(x, alpha=alpha).sub_(y, alpha=last) for m, x, y in zip(moved, v, before, strict=True)]
        beta = math.sqrt(_dot(moved, moved))
        diagonal.append(alpha)
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
        value = float(values[-1])
        size = max(abs(value), 1e-30)
        found = Sharpness(value, count, beta * abs(float(vectors[-1, -1])) / size)
        is_whole = beta <= _ROUNDING * float(np.abs(values).max(initial=1e-30))
        if is_whole or (found.error <= tolerance and value > 0) or time.monotonic() >= end:
            break
        beside.append(beta)
        before, v = v, [m.div_(beta) for m in moved]
    return found


def _unit(v: list[Tensor]) -> list[Tensor]:
    size = math.sqrt(_dot(v, v))
    return [x / size for x in v]


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return sum(float(torch.dot(x.reshape(-1), y.reshape(-1))) for x, y in zip(a, b, strict=True))


def _not_twice(error: RuntimeError) -> BaechiError:
    what = f"the loss cannot be differentiated twice: {str(error).splitlines()[0]}"
    return BaechiError("B853", what, help="give the curvature itself: --curvature H")
