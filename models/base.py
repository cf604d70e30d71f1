"""What a model is, and the registry that finds it by name."""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from baechi.errors import BaechiError

if TYPE_CHECKING:
    import torch

__all__ = ["Example", "Expert", "ModelSpec", "at_least", "get", "layer_index", "names"]

_NOT_MODELS = ("base", "graphs", "tf")
_PACKAGES = {"pytorch": "baechi.models", "tensorflow": "baechi.models.tf"}

Expert = Callable[[str, int], int | None]


class Example(Protocol):
    """Makes the inputs of one step."""

    def __call__(self, batch: int, seed: int = 0) -> "tuple[tuple[torch.Tensor, ...], torch.Tensor | None]":
        """The module's arguments and the target, on the CPU; equal for equal `batch` and `seed`."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model with all that a training step of it needs.

    Attributes:
        name: what `get` knows it by.
        description: one line for a person.
        build: makes the module in training mode; works under ``torch.device("meta")``.
        example: makes the module's arguments and the target for a batch size.
        loss: from the module's result and the target to a scalar; ``output`` when the result is
            the loss itself.
        optimizer: lower-case class name of a `torch.optim` optimiser and its options.
        default_batch: the paper's batch size.
        expert: from an op's module path and a number of devices to the index of the device that a
            human expert would choose; None for a path that is not the model's.
        options: every option in effect, by name.
    """

    name: str
    description: str
    build: "Callable[[], torch.nn.Module]"
    example: Example
    loss: "Callable[[Any, torch.Tensor], torch.Tensor] | str"
    optimizer: tuple[str, Mapping[str, Any]]
    default_batch: int
    expert: Expert
    options: Mapping[str, Any] = field(default_factory=dict)


def names(framework: str = "pytorch") -> tuple[str, ...]:
    """Names of the models that there are for a framework, sorted.

    Example:
        >>> names()
        ('gnmt', 'gpt2', 'inception_v3', 'mlp', 'transformer')
        >>> names("tensorflow")
        ('gnmt', 'inception_v3', 'transformer')
    """
    here = Path(__file__).parent
    found = (module.name for module in pkgutil.iter_modules([str(here / "tf" if framework == "tensorflow" else here)]))
    return tuple(sorted(name for name in found if name not in _NOT_MODELS and not name.startswith("_")))


def get(name: str, *, framework: str = "pytorch", **options: Any) -> Any:
    """The model called `name`: a `ModelSpec`, or for TensorFlow a `baechi.models.tf.ModelSpec`.

    Args:
        name: one of `names`.
        framework: ``pytorch`` or ``tensorflow``.
        options: the model's own, such as ``length`` of ``gnmt``; the rest keep their defaults.

    Raises:
        BaechiError: B101 on an unknown name, B102 on an unknown option or a bad value.

    Example:
        >>> get("mlp", depth=1).options["depth"]
        1
    """
    if name not in names(framework):
        raise BaechiError("B101", f"no model '{name}'", help=_suggest(name, names(framework)))
    spec: Callable[..., Any] = importlib.import_module(f"{_PACKAGES[framework]}.{name}").spec
    defaults = {key: parameter.default for key, parameter in inspect.signature(spec).parameters.items()}
    for key, value in options.items():
        if key not in defaults:
            raise BaechiError("B102", f"model '{name}' has no option '{key}'", help=_suggest(key, defaults))
        _check_value(name, key, value, defaults[key])
    return spec(**options)


def layer_index(path: str, layers: str) -> int | None:
    """The layer that a module path is in, or None when it is in none of `layers`.

    Example:
        >>> layer_index("encoder.layers.3.norm", "encoder.layers"), layer_index("output", "encoder.layers")
        (3, None)
    """
    if not path.startswith(layers + "."):
        return None
    index = path[len(layers) + 1 :].partition(".")[0]
    return int(index) if index.isdigit() else None


def at_least(least: int, **values: int) -> None:
    """Check numbers that a caller gave.

    Raises:
        BaechiError: B102 on one that is below `least`.
    """
    for name, value in values.items():
        if value < least:
            raise BaechiError("B102", f"{name} is {value}", help=f"write {least} or more")


def _suggest(word: str, known: Iterable[str]) -> str:
    listed = sorted(known)
    close = difflib.get_close_matches(word, listed, n=1)
    guess = f"did you mean '{close[0]}'? " if close else ""
    return f"{guess}one of: {', '.join(listed)}"


def _check_value(model: str, key: str, value: Any, default: Any) -> None:
    """An option is of its default's type; counts are at least 1, rates are in [0, 1)."""
    if isinstance(default, bool):
        wanted, good = "true or false", isinstance(value, bool)
    elif isinstance(default, int):
        wanted, good = "a whole number of at least 1", type(value) is int and value >= 1
    else:
        wanted, good = "a number from 0 to below 1", type(value) in (int, float) and 0 <= value < 1
    if not good:
        raise BaechiError("B102", f"option '{key}' of model '{model}' is {value!r}", help=f"write {wanted}")
