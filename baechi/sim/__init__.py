"""The simulator: what a step of a plan takes, in time and in memory."""

from baechi.sim.bounds import bounds
from baechi.sim.critical import critical_path
from baechi.sim.evaluate import Schedule, evaluate, simulate
from baechi.sim.infeasible import explain_infeasible

__all__ = ["Schedule", "bounds", "critical_path", "evaluate", "explain_infeasible", "simulate"]
