"""The greatest eigenvalue of a loss's Hessian, by power iteration with Hessian-vector products.

The Hessian is never formed: its product with a vector is the gradient of the gradient's product with it.

Source: Pearlmutter, "Fast exact multiplication by the Hessian" (Neural Computation, 1994).
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from baechi.errors import BaechiError
from baechi.frontends.pytorch.modules import evaluate_loss
from baechi.jobs.pytorch import TorchJob

if TYPE_CHECKING:
    from baechi.target import Target

__all__ = ["Sharpness", "gradient_seconds", "hessian_norm", "target_sharpness"]

Product = Callable[[list[Tensor]], list[Tensor]]


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
    seed: int = 0,
) -> Sharpness:
    """Find the greatest eigenvalue of a loss's Hessian at the present parameters.

    Power iteration goes to the eigenvalue that is greatest in size; where that is negative, a second one on the
    Hessian less that value finds the greatest.

    Args:
        loss_fn: computes the loss, a scalar; called once.
        params: what it is a function of; they are not changed.
        products: the most Hessian-vector products, at least 2.
        tolerance: on the error of `Sharpness` at which it stops; the eigenvalue itself is then nearer by far.
        seed: of the first vector.

    Raises:
        BaechiError: B853 when the loss is no finite scalar of the parameters, or cannot be differentiated twice.

    Example:
        >>> x = torch.ones(2, requires_grad=True)
        >>> found = hessian_norm(lambda: (torch.tensor([1.0, 3.0]) * x**2).sum() / 2, [x])
        >>> round(found.curvature, 3)
        3.0
    """
    product = _products(loss_fn, params)
    random = torch.Generator().manual_seed(seed)
    start = [torch.randn(p.shape, generator=random, dtype=torch.float64).to(p) for p in params]
    found = _power(product, start, products, tolerance)
    if found.curvature >= 0:
        return found
    shift = found.curvature

    def shifted(v: list[Tensor]) -> list[Tensor]:
        return [h - shift * x for h, x in zip(product(v), v, strict=True)]

    above = _power(shifted, start, products, tolerance)
    greatest = above.curvature + shift
    return Sharpness(
        greatest, found.products + above.products, above.error * above.curvature / max(abs(greatest), 1e-30)
    )


def target_sharpness(target: "Target", *, seed: int = 0, products: int = 100, tolerance: float = 1e-2) -> Sharpness:
    """`hessian_norm` of a target's loss on its example batch, with fresh weights; on this machine's processor.

    Args:
        target: a PyTorch model with a loss, not a file.
        seed: of weights, dropout and the first vector.
        products, tolerance: as for `hessian_norm`.

    Raises:
        BaechiError: B603 for a file; B853 when it has no loss, is of another framework, or as `hessian_norm`.
    """
    loss, trained = _loss_of(target, seed)
    return hessian_norm(loss, trained, products=products, tolerance=tolerance, seed=seed)


def gradient_seconds(target: "Target", *, count: int, warmup: int = 2, seed: int = 0) -> list[float]:
    """Times of a target's gradient on its example batch here, in seconds; arguments and errors as `target_sharpness`."""
    loss, trained = _loss_of(target, seed)
    found = []
    for _ in range(warmup + count):
        began = time.perf_counter()
        torch.autograd.grad(loss(), trained, materialize_grads=True)
        found.append(time.perf_counter() - began)
    return found[warmup:]


def _loss_of(target: "Target", seed: int) -> tuple[Callable[[], Tensor], list[Tensor]]:
    """A target's loss with fresh weights, and these."""
    job = target.code
    if not isinstance(job, TorchJob) or job.loss is None:
        what = f"'{target.name}' is no PyTorch model with a loss"
        raise BaechiError("B853", what, help="give --curvature H and --delay LAW instead")
    torch.manual_seed(seed)
    module = job.build()

    def loss() -> Tensor:
        output = module(*job.args, **dict(job.kwargs or {}))
        return evaluate_loss(job.loss, output, job.target, with_target=job.target is not None)

    return loss, [p for p in module.parameters() if p.requires_grad]


def _products(loss_fn: Callable[[], Tensor], params: Sequence[Tensor]) -> Product:
    """The Hessian as a function of a vector; fused attention has no second derivative, its plain form has."""
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

    return product


def _power(product: Product, start: list[Tensor], products: int, tolerance: float) -> Sharpness:
    v, value, error = _unit(start), 0.0, math.inf
    for count in range(1, products + 1):
        moved = product(v)
        value = _dot(v, moved)
        apart = [m - value * x for m, x in zip(moved, v, strict=True)]
        size = math.sqrt(_dot(moved, moved))
        if size == 0:
            return Sharpness(0.0, count, 0.0)
        error = math.sqrt(_dot(apart, apart)) / max(abs(value), 1e-30)
        if error <= tolerance:
            return Sharpness(value, count, error)
        v = _unit(moved)
    return Sharpness(value, products, error)


def _unit(v: list[Tensor]) -> list[Tensor]:
    size = math.sqrt(_dot(v, v))
    return [x / size for x in v]


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return sum(float((x.double() * y.double()).sum()) for x, y in zip(a, b, strict=True))


def _not_twice(error: RuntimeError) -> BaechiError:
    what = f"the loss cannot be differentiated twice: {str(error).splitlines()[0]}"
    return BaechiError("B853", what, help="give the curvature itself: --curvature H")
