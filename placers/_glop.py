"""Linear programmes for GLOP, by an interface that gets along with TensorFlow in one process.

MathOpt does not: whichever of the two is loaded second cannot register its types. `linear_solver` does, but
TensorFlow shows its own libraries to all that is loaded later, and a solver that takes symbols from them
dies; so it is loaded to look into its own first.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["minimize"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def minimize(
    lower: Floats, upper: Floats, costs: Floats, least: Floats, most: Floats, entries: tuple[Ints, Ints, Floats]
) -> Floats | None:
    """The x that minimises costs . x, with lower <= x <= upper and least <= A x <= most; None when GLOP gives up.

    Args:
        lower, upper, costs: float64[variables].
        least, most: float64[rows].
        entries: of A, by row: rows int64[n], columns int64[n], coefficients float64[n].

    Example:
        >>> one = np.ones(1)
        >>> minimize(0 * one, np.inf * one, one, 3 * one, np.inf * one, (np.zeros(1, int), np.zeros(1, int), one))
        array([3.])
    """
    with _own_symbols():
        from ortools.linear_solver.python import model_builder_helper as glop

    model: Any = glop.ModelBuilderHelper()
    model.add_var_array_with_bounds(lower, upper, np.zeros(len(lower), np.bool_), "")
    used = np.flatnonzero(costs)
    model.set_objective_coefficients(used.tolist(), costs[used].tolist())
    for low, high in zip(least.tolist(), most.tolist(), strict=True):
        row = model.add_linear_constraint()
        model.set_constraint_lower_bound(row, low)
        model.set_constraint_upper_bound(row, high)
    add = model.add_term_to_constraint
    for row, column, coefficient in zip(*(part.tolist() for part in entries), strict=True):
        add(row, column, coefficient)
    solver: Any = glop.ModelSolverHelper("GLOP")
    solver.set_solver_specific_parameters("use_dual_simplex: true num_omp_threads: 1")
    solver.solve(model)
    if solver.status() != glop.SolveStatus.OPTIMAL:
        return None
    return np.asarray(solver.variable_values(), np.float64)


@contextmanager
def _own_symbols() -> Iterator[None]:
    """Within, a library that is loaded takes symbols of its own before those of others, if TensorFlow is there."""
    if "tensorflow" not in sys.modules or not hasattr(os, "RTLD_DEEPBIND"):
        yield
        return
    before = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)
    try:
        yield
    finally:
        sys.setdlopenflags(before)
