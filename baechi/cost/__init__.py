"""What an op, a transfer and a tensor cost on a device: Op x Device to seconds and bytes."""

from baechi.cost.compute import op_seconds
from baechi.cost.problem import Problem
from baechi.cost.table import CostTable

__all__ = ["CostTable", "Problem", "op_seconds"]
