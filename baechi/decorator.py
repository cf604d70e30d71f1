"""`baechi.place` on a module, a class or a step function."""

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from baechi.errors import BaechiError

if TYPE_CHECKING:
    from baechi.backends.pytorch.placed import Planner

__all__ = ["decorate"]


def decorate(target: Any, planner: "Planner") -> Any:
    """Let `target` run as the planner says; see `baechi.place`.

    Raises:
        BaechiError: B107 on a target that is no module, class or function.
    """
    from torch import nn

    from baechi.backends.pytorch.placed import attach, is_disabled, wrap

    if is_disabled():
        return target
    if isinstance(target, type) and issubclass(target, nn.Module):
        wrap(target, planner)
        return target
    if isinstance(target, nn.Module):
        return attach(target, planner)
    if inspect.isfunction(target) or inspect.ismethod(target):
        return _step(target, planner)
    raise BaechiError(
        "B107", f"place() was given a {type(target).__name__}", help="give a module, its class or a function"
    )


def _step(function: Callable[..., Any], planner: "Planner") -> Callable[..., Any]:
    """The function, with the modules that it is given or refers to placed before they run."""
    from torch import nn

    from baechi.backends.pytorch.placed import attach, is_disabled, runtime_of

    @functools.wraps(function)
    def step(*args: Any, **kwargs: Any) -> Any:
        if not is_disabled():
            outside = inspect.getclosurevars(function)
            values = (*args, *kwargs.values(), *outside.nonlocals.values(), *outside.globals.values())
            modules = [value for value in values if isinstance(value, nn.Module)]
            inner = {id(child) for module in modules for child in module.modules() if child is not module}
            for module in modules:
                if runtime_of(module) is None and id(module) not in inner and any(True for _ in module.parameters()):
                    attach(module, planner)
        return function(*args, **kwargs)

    return step
