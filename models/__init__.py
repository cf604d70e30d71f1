"""Models to place: `get` a specification by name, or list the `names`.

A model is one file of this package that defines ``spec(**options) -> ModelSpec``; nothing is
imported before its model is asked for. `baechi.models.graphs` has graphs that need no framework.
"""

from baechi.models.base import ModelSpec, get, names

__all__ = ["ModelSpec", "get", "names"]
