"""Data-parallel replicas of a placed model: they gossip, or train together by a named method."""

from importlib import import_module
from typing import Any

__all__ = [
    "ATTACKS",
    "PROBLEMS",
    "RULES",
    "Replica",
    "aggregate",
    "attack",
    "compressor",
    "join",
    "method",
    "problem",
    "train",
]

_WHERE = {
    "ATTACKS": "baechi.replicas.attacks",
    "PROBLEMS": "baechi.replicas.problems",
    "RULES": "baechi.replicas.rules",
    "Replica": "baechi.replicas.cluster.session",
    "aggregate": "baechi.replicas.rules",
    "attack": "baechi.replicas.attacks",
    "compressor": "baechi.replicas.compress",
    "join": "baechi.replicas.cluster.session",
    "method": "baechi.replicas.methods",
    "problem": "baechi.replicas.problems",
    "train": "baechi.replicas.cluster.train",
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
