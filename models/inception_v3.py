"""Inception-V3 (Szegedy et al., "Rethinking the Inception Architecture", 2015, table 1 and figures 5 to 10).

Convolutions have batch normalisation (epsilon 0.001) and no bias. 23,834,568 parameters, and
3,326,696 more in the auxiliary head that training adds at the end of the 17 x 17 stage.
"""

import torch
from torch import nn
from torch.nn import functional as F

from baechi.errors import BaechiError
from baechi.models.base import ModelSpec

__all__ = ["InceptionV3", "loss", "spec"]

_SMALLEST = 75
_SMALLEST_WITH_AUX = 299  # the head's 5 x 5 convolution needs a 17 x 17 stage

Size = int | tuple[int, int]


class Conv(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Size, *, stride: int = 1, pad: Size = 0, std: float = 0.1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, pad, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=0.001)
        nn.init.normal_(self.conv.weight, std=std)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)


class Branches(nn.Module):
    """Runs branches on one input and joins their channels."""

    def __init__(self, **branches: nn.Module):
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.children()], dim=1)


def _pool() -> nn.Module:
    return nn.AvgPool2d(3, stride=1, padding=1)


def _block35(inputs: int, pooled: int) -> nn.Module:
    """Figure 5: 1x1, 5x5, two 3x3, pool."""
    return Branches(
        one=Conv(inputs, 64, 1),
        five=nn.Sequential(Conv(inputs, 48, 1), Conv(48, 64, 5, pad=2)),
        three=nn.Sequential(Conv(inputs, 64, 1), Conv(64, 96, 3, pad=1), Conv(96, 96, 3, pad=1)),
        pool=nn.Sequential(_pool(), Conv(inputs, pooled, 1)),
    )


def _reduce35(inputs: int) -> nn.Module:
    """Figure 10: 35 x 35 to 17 x 17."""
    return Branches(
        three=Conv(inputs, 384, 3, stride=2),
        deep=nn.Sequential(Conv(inputs, 64, 1), Conv(64, 96, 3, pad=1), Conv(96, 96, 3, stride=2)),
        pool=nn.MaxPool2d(3, stride=2),
    )


def _row(inputs: int, outputs: int) -> Conv:
    return Conv(inputs, outputs, (1, 7), pad=(0, 3))


def _column(inputs: int, outputs: int) -> Conv:
    return Conv(inputs, outputs, (7, 1), pad=(3, 0))


def _block17(c: int) -> nn.Module:
    """Figure 6, n = 7: 7x7 convolutions as a row and a column, `c` channels between them."""
    return Branches(
        one=Conv(768, 192, 1),
        seven=nn.Sequential(Conv(768, c, 1), _row(c, c), _column(c, 192)),
        deep=nn.Sequential(Conv(768, c, 1), _column(c, c), _row(c, c), _column(c, c), _row(c, 192)),
        pool=nn.Sequential(_pool(), Conv(768, 192, 1)),
    )


def _reduce17() -> nn.Module:
    """17 x 17 to 8 x 8."""
    return Branches(
        three=nn.Sequential(Conv(768, 192, 1), Conv(192, 320, 3, stride=2)),
        seven=nn.Sequential(Conv(768, 192, 1), _row(192, 192), _column(192, 192), Conv(192, 192, 3, stride=2)),
        pool=nn.MaxPool2d(3, stride=2),
    )


def _fork() -> nn.Module:
    return Branches(row=Conv(384, 384, (1, 3), pad=(0, 1)), column=Conv(384, 384, (3, 1), pad=(1, 0)))


def _block8(inputs: int) -> nn.Module:
    """Figure 7: the 3x3 convolutions end in a fork."""
    return Branches(
        one=Conv(inputs, 320, 1),
        three=nn.Sequential(Conv(inputs, 384, 1), _fork()),
        deep=nn.Sequential(Conv(inputs, 448, 1), Conv(448, 384, 3, pad=1), _fork()),
        pool=nn.Sequential(_pool(), Conv(inputs, 192, 1)),
    )


def _classifier(inputs: int, classes: int, std: float) -> nn.Linear:
    layer = nn.Linear(inputs, classes)
    nn.init.normal_(layer.weight, std=std)
    return layer


class InceptionV3(nn.Module):
    """Inception-V3.

    Args:
        classes: number of classes.
        aux: whether training also runs the auxiliary head.
        dropout: rate before the classifier.

    Shapes: ``(batch, 3, 299, 299)`` to logits ``(batch, classes)``; in training, with the
    auxiliary head, a pair of them.
    """

    def __init__(self, classes: int, *, aux: bool, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Conv(3, 32, 3, stride=2),
            Conv(32, 32, 3),
            Conv(32, 64, 3, pad=1),
            nn.MaxPool2d(3, stride=2),
            Conv(64, 80, 1),
            Conv(80, 192, 3),
            nn.MaxPool2d(3, stride=2),
        )
        self.stage35 = nn.Sequential(_block35(192, 32), _block35(256, 64), _block35(288, 64))
        self.reduce35 = _reduce35(288)
        self.stage17 = nn.Sequential(_block17(128), _block17(160), _block17(160), _block17(192))
        self.aux = _aux(classes) if aux else None
        self.reduce17 = _reduce17()
        self.stage8 = nn.Sequential(_block8(1280), _block8(2048))
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Dropout(dropout), nn.Flatten(), _classifier(2048, classes, 0.1)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        x = self.stage17(self.reduce35(self.stage35(self.stem(images))))
        logits: torch.Tensor = self.head(self.stage8(self.reduce17(x)))
        if self.aux is None or not self.training:
            return logits
        return logits, self.aux(x)


def _aux(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.AvgPool2d(5, stride=3),
        Conv(768, 128, 1),
        Conv(128, 768, 5, std=0.01),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        _classifier(768, classes, 0.001),
    )


def loss(output: torch.Tensor | tuple[torch.Tensor, torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    """Cross entropy, and 0.4 times the auxiliary head's where there is one."""
    if isinstance(output, torch.Tensor):
        return F.cross_entropy(output, target)
    logits, aux = output
    return F.cross_entropy(logits, target) + 0.4 * F.cross_entropy(aux, target)


def spec(*, image: int = 299, classes: int = 1000, aux: bool = True, dropout: float = 0.5) -> ModelSpec:
    """Inception-V3 with its auxiliary head, trained by RMSProp with the constants of its paper.

    The expert of Baechi's paper uses one device.

    Raises:
        BaechiError: B102 when `image` is too small for the network.
    """
    smallest = _SMALLEST_WITH_AUX if aux else _SMALLEST
    if image < smallest:
        help = f"{smallest} or more" + (f", or {_SMALLEST} or more with aux=False" if aux else "")
        raise BaechiError("B102", f"option 'image' of model 'inception_v3' is {image}", help=help)

    def example(batch: int, seed: int = 0) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(batch, 3, image, image, generator=generator)
        return (images,), torch.randint(classes, (batch,), generator=generator)

    def expert(path: str, devices: int) -> int | None:
        known = ("", "stem", "stage35", "reduce35", "stage17", "aux", "reduce17", "stage8", "head")
        return 0 if path.partition(".")[0] in known else None

    return ModelSpec(
        name="inception_v3",
        description=f"Inception-V3, {image} x {image} images, {classes} classes",
        build=lambda: InceptionV3(classes, aux=aux, dropout=dropout),
        example=example,
        loss=loss,
        optimizer=("rmsprop", {"lr": 0.045, "alpha": 0.9, "eps": 1.0}),
        default_batch=32,
        expert=expert,
        options={"image": image, "classes": classes, "aux": aux, "dropout": dropout},
    )
