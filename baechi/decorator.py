"""`baechi.place` on a module, a class, a step function, a `tf.function` or a Keras model."""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from baechi.backends.switch import is_disabled
from baechi.errors import BaechiError

if TYPE_CHECKING:
    from baechi.backends.pytorch.placed import Planner
    from baechi.backends.tf.decorated import PlacedFunction
    from baechi.backends.tf.decorated import Planner as TensorFlowPlanner

__all__ = ["decorate"]


def decorate(target: Any, planner: "Planner", tensorflow: "TensorFlowPlanner", devices: Callable[[], int]) -> Any:
    """Let `target` run as the planners say; see `baechi.place`.

    Args:
        target: what is placed. Its framework is loaded already, and no other is.
        planner: for a module.
        tensorflow: for a step of TensorFlow.
        devices: how many a plan may have, as far as is known.

    Raises:
        BaechiError: B107 on a target that cannot be placed.
    """
    if is_disabled():
        return target
    if "tensorflow" in sys.modules:
        from baechi.backends.tf.decorated import attach_model, is_model, wrap
        from baechi.backends.tf.devices import ensure_devices

        ensure_devices(devices())
        if is_model(target):
            return attach_model(target, tensorflow)
        if (placed := wrap(target, tensorflow)) is not None:
            return placed
    if inspect.isfunction(target) or inspect.ismethod(target):
        return _step(target, planner, tensorflow)
    return _module(target, planner)


def _module(target: Any, planner: "Planner") -> Any:
    torch = sys.modules.get("torch")  # who gives a module has loaded it
    if torch is not None:
        from baechi.backends.pytorch.placed import attach, wrap

        if isinstance(target, type) and issubclass(target, torch.nn.Module):
            wrap(target, planner)
            return target
        if isinstance(target, torch.nn.Module):
            return attach(target, planner)
    raise BaechiError(
        "B107",
        f"place() was given a {type(target).__name__}",
        help="give a module, its class, a function, a tf.function or a Keras model",
    )


def _step(function: Callable[..., Any], planner: "Planner", tensorflow: "TensorFlowPlanner") -> Callable[..., Any]:
    """The function: a step of TensorFlow when it is called with its tensors, else the modules in it are placed."""
    placed: list[PlacedFunction] = []

    @functools.wraps(function)
    def step(*args: Any, **kwargs: Any) -> Any:
        if is_disabled():
            return function(*args, **kwargs)
        if "tensorflow" in sys.modules:
            from baechi.backends.tf.decorated import PlacedFunction, call, is_tensor_call

            if is_tensor_call(args, kwargs):
                if not placed:
                    placed.append(PlacedFunction(function, tensorflow))
                    step.baechi = placed[0].baechi  # type: ignore[attr-defined]
                return call(placed[0], args, kwargs)
        if "torch" in sys.modules:
            _attach_modules(function, args, kwargs, planner)
        return function(*args, **kwargs)

    return step


def _attach_modules(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], planner: "Planner"
) -> None:
    """Place the modules that a function is given or refers to."""
    from torch import nn

    from baechi.backends.pytorch.placed import attach, runtime_of

    outside = inspect.getclosurevars(function)
    values = (*args, *kwargs.values(), *outside.nonlocals.values(), *outside.globals.values())
    modules = [value for value in values if isinstance(value, nn.Module)]
    inner = {id(child) for module in modules for child in module.modules() if child is not module}
    for module in modules:
        if runtime_of(module) is None and id(module) not in inner and any(True for _ in module.parameters()):
            attach(module, planner)
