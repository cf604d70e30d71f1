"""A multi-layer perceptron: the smallest model worth a plan."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from baechi.models.base import ModelSpec, layer_index

__all__ = ["MLP", "spec"]


class MLP(nn.Module):
    """`depth` hidden layers of `width` units with ReLU, then a classifier.

    Args:
        inputs: features of an image, flattened.
        width: units of a hidden layer.
        depth: number of hidden layers.
        classes: number of classes.

    Shapes: ``(batch, inputs)`` to logits ``(batch, classes)``.
    """

    def __init__(self, inputs: int, width: int, depth: int, classes: int) -> None:
        super().__init__()
        sizes = [inputs] + [width] * depth
        self.hidden = nn.Sequential(*(nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)))
        self.classifier = nn.Linear(width, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.hidden(images))
        return logits


def spec(*, width: int = 512, depth: int = 2, inputs: int = 784, classes: int = 10) -> ModelSpec:
    """A perceptron of 784-512-512-10 units, trained by SGD with momentum.

    The expert cuts the layers, the classifier included, into runs of equal length.
    """

    def example(batch: int, seed: int = 0) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(batch, inputs, generator=generator)
        return (images,), torch.randint(classes, (batch,), generator=generator)

    def expert(path: str, devices: int) -> int | None:
        if path in ("", "classifier"):
            return depth * devices // (depth + 1)
        if path == "hidden":
            return 0
        layer = layer_index(path, "hidden")
        return None if layer is None else layer * devices // (depth + 1)

    return ModelSpec(
        name="mlp",
        description=f"perceptron with {depth} hidden layers of {width} units",
        build=lambda: MLP(inputs, width, depth, classes),
        example=example,
        loss=F.cross_entropy,
        optimizer=("sgd", {"lr": 0.05, "momentum": 0.9}),
        default_batch=64,
        expert=expert,
        options={"width": width, "depth": depth, "inputs": inputs, "classes": classes},
    )
