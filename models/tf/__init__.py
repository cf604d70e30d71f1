"""Models for TensorFlow: `get` a specification by name, or list the `names`.

A model is one file of this package that defines ``spec(**options) -> ModelSpec``; TensorFlow is imported
when one is asked for.
"""

from typing import Any

from baechi.models.base import get as find
from baechi.models.base import names as listed
from baechi.models.tf.base import ModelSpec

__all__ = ["ModelSpec", "get", "names"]


def get(name: str, **options: Any) -> ModelSpec:
    """The model called `name`; arguments and errors as `baechi.models.get`."""
    spec: ModelSpec = find(name, framework="tensorflow", **options)
    return spec


def names() -> tuple[str, ...]:
    """Names of the models, sorted."""
    return listed("tensorflow")
