"""Data-parallel replicas of a placed model: they gossip, or train together by a named method."""

from importlib import import_module
from typing import Any

__all__ = [
    "Advice",
    "advise",
    "hessian_norm",
    "parse_delay",
]

_WHERE: dict[str, str] = {
    "Advice": "baechi.replicas.staleness",
    "advise": "baechi.replicas.staleness",
    "hessian_norm": "baechi.replicas.curvature",
    "parse_delay": "baechi.replicas.delays",
}
"""By public name, the module that has it: nothing is imported before it is used."""


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'baechi.replicas' has no attribute '{name}'")
