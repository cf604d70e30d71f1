"""Training problems for the replicas' algorithms: a model as one flat vector, and each worker's own data.

The next problem is one new file, and a line here.
"""

import math
from numbers import Integral, Real
from typing import TYPE_CHECKING

from baechi.errors import BaechiError
from baechi.replicas.registry import Registry

if TYPE_CHECKING:
    from baechi.replicas.problems.base import Problem

__all__ = ["PROBLEMS", "problem"]

PROBLEMS = Registry(
    "problem",
    "B820",
    {
        "quadratic": "baechi.replicas.problems.quadratic:Quadratic",
        "regression": "baechi.replicas.problems.regression:Regression",
        "mnist": "baechi.replicas.problems.mnist:Mnist",
        "bytes": "baechi.replicas.problems.text:Text",
    },
)
"""By name, the module and the class of a problem."""


def problem(name: str, **options: object) -> "Problem":
    """The problem called `name`, for some workers.

    Args:
        name: one of `PROBLEMS`.
        options: of all: `workers`, `seed` of its data, `device`, `dtype`; others as its class says.

    Raises:
        BaechiError: B820 when there is none, it has no such option, or an option is out of its range;
            B821 when what its data comes with is not installed.

    Example:
        >>> easy = problem("quadratic", workers=3, size=2, condition=10.0)
        >>> easy.loss(easy.start(seed=1)) > easy.loss(easy.optimum) == 0.0
        True
    """
    known = PROBLEMS.options(name, options)
    for option, value in options.items():
        is_negative = option == "seed" and isinstance(value, Integral) and value < 0
        if is_negative or not _fits(value, known[option].default):
            raise BaechiError("B820", f"problem '{name}': {option} is {value!r}", help=f"as {known[option].default!r}")
    made: Problem = PROBLEMS.find(name)(**options)
    return made


def _fits(value: object, default: object) -> bool:
    """Whether an option is of the kind of its default; of a device all forms are."""
    if isinstance(default, float):
        return isinstance(value, Real) and math.isfinite(value)
    if isinstance(default, int):
        return isinstance(value, Integral)
    return isinstance(value, type(default)) or default == "cpu"
