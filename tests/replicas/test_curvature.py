"""The greatest eigenvalue of a Hessian against the whole Hessian's."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from baechi.errors import BaechiError
from baechi.replicas.curvature import gradient_seconds, hessian_norm, target_sharpness
from baechi.target import load_target

SIZES = {"width": 5, "inputs": 4, "depth": 1, "classes": 3}


def whole(module: nn.Module, loss: object) -> Tensor:
    """Eigenvalues of the whole Hessian of a module's loss."""
    names, shapes = zip(*((n, p.shape) for n, p in module.named_parameters()), strict=True)
    flat = torch.cat([p.detach().reshape(-1) for p in module.parameters()])

    def of(vector: Tensor) -> Tensor:
        parts = vector.split([s.numel() for s in shapes])
        parameters = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        result: Tensor = loss(lambda x: functional_call(module, parameters, (x,)))  # type: ignore[operator]
        return result

    return torch.linalg.eigvalsh(torch.autograd.functional.hessian(of, flat))


@pytest.mark.parametrize("seed", range(4))
def test_it_is_that_of_the_whole_hessian(seed: int) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    x, y = torch.randn(16, 4).double(), torch.randn(16, 2).double()
    before = [p.clone() for p in net.parameters()]
    found = hessian_norm(lambda: nn.functional.mse_loss(net(x), y), list(net.parameters()), products=400)
    eigenvalues = whole(net, lambda call: nn.functional.mse_loss(call(x), y))
    assert found.curvature == pytest.approx(float(eigenvalues[-1]), rel=0.01)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_a_greater_negative_eigenvalue_does_not_hide_it() -> None:
    x = torch.ones(3, requires_grad=True)
    h = torch.tensor([-9.0, 2.0, 4.0])
    found = hessian_norm(lambda: (h * x**2).sum() / 2, [x], tolerance=1e-4)
    assert found.curvature == pytest.approx(4.0, rel=1e-3)


def test_a_loss_that_does_not_curve() -> None:
    x, y = torch.ones(3, requires_grad=True), torch.ones(1, requires_grad=True)
    assert hessian_norm(lambda: x.sum(), [x, y]).curvature == 0.0
    assert hessian_norm(lambda: (x**2).sum(), [x, y]).curvature == pytest.approx(2.0)


def test_of_a_target() -> None:
    target = load_target("models:mlp", batch=8, options=SIZES)
    found = target_sharpness(target, seed=3, products=400, tolerance=1e-3)
    torch.manual_seed(3)
    job = target.code
    net = job.build()  # type: ignore[attr-defined]
    eigenvalues = whole(net, lambda call: nn.functional.cross_entropy(call(*job.args), job.target))  # type: ignore[attr-defined]
    assert found.curvature == pytest.approx(float(eigenvalues[-1]), rel=0.01)
    assert len(gradient_seconds(target, count=3)) == 3


def test_attention_is_differentiated_twice() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    x = torch.randn(2, 3, 8)
    assert hessian_norm(lambda: (layer(x) ** 2).mean(), list(layer.parameters()), products=5).products > 0


def test_what_has_no_hessian_is_refused() -> None:
    x = torch.ones(2, requires_grad=True)
    for loss in (lambda: x, lambda: torch.ones(()), lambda: (x / 0).sum()):
        with pytest.raises(BaechiError) as error:
            hessian_norm(loss, [x])
        assert error.value.code == "B853"

    with pytest.raises(BaechiError, match="twice"):
        hessian_norm(lambda: Once.apply(x).sum(), [x])


class Once(torch.autograd.Function):
    """A square whose derivative has none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        doubled: Tensor = Double.apply(ctx.saved_tensors[0])
        return grads[0] * doubled


class Double(torch.autograd.Function):
    """Twice a number, and no derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        raise RuntimeError("the derivative is not implemented")
