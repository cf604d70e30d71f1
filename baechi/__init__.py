"""baechi: operator placement for training graphs on memory-constrained devices."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from baechi.version import __version__

if TYPE_CHECKING:
    from baechi.api import ModelPlan, place, plan

__all__ = ["ModelPlan", "__version__", "place", "plan"]


def __getattr__(name: str) -> Any:
    """Load the functions when they are first used: `import baechi` imports no framework and no solver."""
    if name == "replicas":
        return import_module("baechi.replicas")
    if name in __all__:
        return getattr(import_module("baechi.api"), name)
    raise AttributeError(f"module 'baechi' has no attribute '{name}'")
