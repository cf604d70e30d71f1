"""Data-parallel replicas of a placed model: they gossip, or train together by a named method."""

from importlib import import_module
from typing import Any

__all__ = [
    "ATTACKS",
    "PROBLEMS",
    "RULES",
    "Advice",
    "Replica",
    "advise",
    "aggregate",
    "attack",
    "compressor",
    "hessian_norm",
    "join",
    "method",
    "parse_delay",
    "problem",
    "train",
]

_WHERE = {
    "ATTACKS": "baechi.replicas.attacks",
    "PROBLEMS": "baechi.replicas.problems",
    "RULES": "baechi.replicas.rules",
    "Advice": "baechi.replicas.staleness",
    "Replica": "baechi.replicas.cluster.session",
    "advise": "baechi.replicas.staleness",
    "aggregate": "baechi.replicas.rules",
    "attack": "baechi.replicas.attacks",
    "compressor": "baechi.replicas.compress",
    "hessian_norm": "baechi.replicas.curvature",
    "join": "baechi.replicas.cluster.session",
    "method": "baechi.replicas.methods",
    "parse_delay": "baechi.replicas.delays",
    "problem": "baechi.replicas.problems",
    "train": "baechi.replicas.cluster.train",
}
"""By public name, the module that has it: nothing is imported before it is used."""


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'baechi.replicas' has no attribute '{name}'")
