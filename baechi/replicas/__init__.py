"""Data-parallel replicas of a placed model: they gossip, or train together by a named method."""

from importlib import import_module
from typing import Any

__all__ = [
    "ATTACKS",
    "PROBLEMS",
    "RULES",
    "Advice",
    "AgeModel",
    "Conditions",
    "Draco",
    "DracoOptions",
    "Replica",
    "Simulator",
    "Topology",
    "advise",
    "aggregate",
    "attack",
    "breaking_ratio",
    "breaks",
    "compressor",
    "hessian_norm",
    "join",
    "join_cluster",
    "method",
    "mixing_warning",
    "parse_delay",
    "parse_distribution",
    "parse_topology",
    "problem",
    "simulate_ages",
    "staleness_law",
    "train",
    "train_clusters",
    "weaknesses",
    "zeno_async",
]

_WHERE = {
    "ATTACKS": "baechi.replicas.attacks",
    "PROBLEMS": "baechi.replicas.problems",
    "RULES": "baechi.replicas.rules",
    "Advice": "baechi.replicas.staleness",
    "AgeModel": "baechi.replicas.age_model",
    "Conditions": "baechi.replicas.conditions",
    "Draco": "baechi.replicas.draco",
    "DracoOptions": "baechi.replicas.draco_options",
    "Replica": "baechi.replicas.cluster.session",
    "Simulator": "baechi.replicas.events",
    "Topology": "baechi.replicas.topology",
    "advise": "baechi.replicas.staleness",
    "aggregate": "baechi.replicas.rules",
    "attack": "baechi.replicas.attacks",
    "breaking_ratio": "baechi.replicas.attacks.breaks",
    "breaks": "baechi.replicas.attacks.breaks",
    "compressor": "baechi.replicas.compress",
    "hessian_norm": "baechi.replicas.curvature",
    "join": "baechi.replicas.cluster.session",
    "join_cluster": "baechi.replicas.cluster.crew_session",
    "method": "baechi.replicas.methods",
    "mixing_warning": "baechi.replicas.topology",
    "parse_delay": "baechi.replicas.delays",
    "parse_distribution": "baechi.replicas.clocks",
    "parse_topology": "baechi.replicas.topology",
    "problem": "baechi.replicas.problems",
    "simulate_ages": "baechi.replicas.ages",
    "staleness_law": "baechi.replicas.age_model",
    "train": "baechi.replicas.cluster.train",
    "train_clusters": "baechi.replicas.cluster.train",
    "weaknesses": "baechi.replicas.attacks.weakness",
    "zeno_async": "baechi.replicas.rules.zeno_async",
}
"""By public name, the module that has it: nothing is imported before it is used."""


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'baechi.replicas' has no attribute '{name}'")
