"""Copies of a placed model that train on their own data and gossip; simulated, planned, attacked, compared."""

from types import ModuleType

from baechi.cli.replicas import attack, clusters, compare, plan, run, simulate

__all__ = ["COMMANDS", "DEFAULT"]

COMMANDS: tuple[ModuleType, ...] = (attack, clusters, compare, plan, run, simulate)
"""What `baechi replicas WHAT` can be."""

DEFAULT = "run"
"""What it is when nothing of these is named."""
