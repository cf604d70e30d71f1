"""Linear programmes for GLOP."""

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
    """
    from ortools.math_opt import model_pb2
    from ortools.math_opt.python import mathopt

    # Arrays go in whole: the expression interface takes as long to build the model as to solve it.
    proto = model_pb2.ModelProto()
    proto.variables.ids.extend(range(len(lower)))
    proto.variables.lower_bounds.extend(lower.tolist())
    proto.variables.upper_bounds.extend(upper.tolist())
    proto.variables.integers.extend([False] * len(lower))
    used = np.flatnonzero(costs)
    proto.objective.linear_coefficients.ids.extend(used.tolist())
    proto.objective.linear_coefficients.values.extend(costs[used].tolist())
    proto.linear_constraints.ids.extend(range(len(least)))
    proto.linear_constraints.lower_bounds.extend(least.tolist())
    proto.linear_constraints.upper_bounds.extend(most.tolist())
    rows, columns, coefficients = entries
    proto.linear_constraint_matrix.row_ids.extend(rows.tolist())
    proto.linear_constraint_matrix.column_ids.extend(columns.tolist())
    proto.linear_constraint_matrix.coefficients.extend(coefficients.tolist())
    model = mathopt.Model.from_model_proto(proto)
    how = mathopt.SolveParameters(threads=1, lp_algorithm=mathopt.LPAlgorithm.DUAL_SIMPLEX)
    result = mathopt.solve(model, mathopt.SolverType.GLOP, params=how)
    if result.termination.reason != mathopt.TerminationReason.OPTIMAL:
        return None
    return np.array(result.variable_values(list(model.variables())), np.float64)
