"""Training problems for the replicas' algorithms: a model as one flat vector, and each worker's own data.

The next problem is one new file, and a line here.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from baechi.errors import BaechiError

if TYPE_CHECKING:
    from baechi.replicas.problems.base import Problem

__all__ = ["PROBLEMS", "problem"]

PROBLEMS: Mapping[str, str] = {
    "quadratic": "baechi.replicas.problems.quadratic:Quadratic",
    "regression": "baechi.replicas.problems.regression:Regression",
    "mnist": "baechi.replicas.problems.mnist:Mnist",
    "bytes": "baechi.replicas.problems.text:Text",
}
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
    if name not in PROBLEMS:
        raise BaechiError("B820", f"no problem '{name}'", help="one of: " + ", ".join(PROBLEMS))
    module, _, cls = PROBLEMS[name].partition(":")
    try:
        made: Problem = getattr(import_module(module), cls)(**options)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise BaechiError("B820", f"problem '{name}': {str(error).partition(') ')[2] or error}") from None
    return made
