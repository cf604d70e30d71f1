"""Copies of a placed model that train on their own data and gossip; simulated, planned, attacked, compared."""

from types import ModuleType

from baechi.cli.replicas import attack, run

__all__ = ["COMMANDS", "DEFAULT"]

COMMANDS: tuple[ModuleType, ...] = (run, attack)
from baechi.cli.replicas import compare, run

__all__ = ["COMMANDS", "DEFAULT"]

COMMANDS: tuple[ModuleType, ...] = (compare, run)
from baechi.cli.replicas import clusters, plan

__all__ = ["COMMANDS", "DEFAULT"]

COMMANDS: tuple[ModuleType, ...] = (clusters, plan)
"""What `baechi replicas WHAT` can be."""

DEFAULT = "run"
"""What it is when nothing of these is named."""
