"""Run a step once with symbolic tensors, and what can go wrong there."""

import contextlib
import gc
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from baechi.errors import BaechiError
from baechi.frontends.tf.effects import Effects
from baechi.frontends.tf.provenance import LINES

__all__ = ["Traced", "spec_of", "trace", "unhurried_collector"]

_EAGER = (
    "numpy() is only available when eager execution is enabled",
    "has no attribute 'numpy'",
    "not 'SymbolicTensor'",
    "Using a symbolic `tf.Tensor` as a Python `bool`",
    "Using a symbolic tensor as a Python",
    "Iterating over a symbolic `tf.Tensor`",
    "Cannot convert a symbolic tf.Tensor",
    "a NumPy call, which is not supported",
    "numpy.ndarray",
)
_CREATES = (
    "tf.function only supports singleton tf.Variables",
    "tried to create variables on",
    "Unable to lift tensor",
    "Tensor-typed variable initializers must either be wrapped",
)
_FILE = re.compile(r'File "([^"]+)", line (\d+)')


@dataclass(frozen=True, eq=False)
class Traced:
    """A traced step.

    Args:
        graph: the function's graph.
        inputs: by position in the flattened arguments, the placeholder of a tensor.
        specs: by position, its type and shape; None for what is no tensor.
        outputs: by position in the flattened results, the tensor; None for what is no tensor.
        arguments, results: the structures of both, for `tf.nest`.
        given: by position in the flattened arguments, what is no tensor there.
        owner: what must stay alive while the graph is used.
    """

    graph: Any
    inputs: tuple[Any, ...]
    specs: tuple[tf.TensorSpec | None, ...]
    outputs: tuple[Any, ...]
    arguments: Any
    results: Any
    given: Mapping[int, Any]
    owner: Any


@dataclass(slots=True, eq=False)
class _Flat:
    """A step whose arguments and results are flat lists of tensors."""

    step: Callable[..., Any]
    leaves: Sequence[Any]
    arguments: Any
    results: Any = None
    made: list[Any] = field(default_factory=list)

    def pack(self, tensors: Sequence[Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        rest = iter(tensors)
        flat = [next(rest) if _is_spec(leaf) else leaf for leaf in self.leaves]
        packed: tuple[Sequence[Any], Mapping[str, Any]] = tf.nest.pack_sequence_as(self.arguments, flat)
        return packed

    def unpack(self, results: Any) -> list[Any]:
        leaves = tf.nest.flatten(results)
        self.results = tf.nest.map_structure(lambda _: None, results)
        self.made = [None if leaf is None else tf.identity(tf.convert_to_tensor(leaf)) for leaf in leaves]
        return [t for t in self.made if t is not None]


def trace(step: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Traced:
    """Trace one call of a step.

    Args:
        step: a `tf.function` or a plain function.
        args, kwargs: example arguments: tensors, arrays or `tf.TensorSpec`, and whatever else it takes.

    Raises:
        BaechiError: B710 to B715 as `capture`.
    """
    structure = (tuple(args), dict(kwargs))
    leaves = [spec_of(leaf, i) for i, leaf in enumerate(tf.nest.flatten(structure))]
    python = getattr(step, "python_function", step)
    flat = _Flat(python, leaves, tf.nest.map_structure(lambda _: None, structure))
    autograph = bool(getattr(step, "_autograph", True))
    changed: str | None = None
    for _ in range(2):  # what is made at the first call is not made at the second
        effects = Effects.of(python)
        concrete = _concrete(flat, autograph=autograph)
        changed = effects.changed
        if changed is None:
            break
    if changed is not None:
        raise BaechiError(
            "B715",
            f"the step changes '{changed}', a Python object, as it runs",
            help="a traced step does that once and never again: use a tf.Variable, or do it outside the step",
        )
    count = sum(map(_is_spec, leaves))
    placeholders = iter(concrete.inputs[:count])
    outputs = iter(concrete.outputs)
    return Traced(
        graph=concrete.graph,
        inputs=tuple(next(placeholders) if _is_spec(leaf) else None for leaf in leaves),
        specs=tuple(leaf if _is_spec(leaf) else None for leaf in leaves),
        outputs=tuple(None if t is None else next(outputs) for t in flat.made),
        arguments=flat.arguments,
        results=flat.results,
        given={i: leaf for i, leaf in enumerate(leaves) if not _is_spec(leaf)},
        owner=(step, concrete),
    )


@contextlib.contextmanager
def unhurried_collector() -> Iterator[None]:
    """Without garbage collection: of the million objects that tracing makes, most stay."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _concrete(flat: _Flat, *, autograph: bool) -> Any:
    pack = tf.autograph.experimental.do_not_convert(flat.pack)
    unpack = tf.autograph.experimental.do_not_convert(flat.unpack)
    step = flat.step

    def body(*tensors: Any) -> Any:
        arguments = pack(tensors)
        return unpack(step(*arguments[0], **arguments[1]))

    specs = [leaf for leaf in flat.leaves if _is_spec(leaf)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Keras, about what the step itself does
            return tf.function(body, autograph=autograph).get_concrete_function(*specs)
    except BaechiError:
        raise
    except Exception as error:  # what user code raises, under a tracer that raises its own kinds
        raise _untraceable(error) from error


def _is_spec(leaf: Any) -> bool:
    return isinstance(leaf, tf.TensorSpec)


def spec_of(leaf: Any, position: int) -> Any:
    """The type and shape of an example argument; what is no tensor as it is.

    Raises:
        BaechiError: B713 on a ragged or sparse tensor, B714 on a shape that is not all known.
    """
    if isinstance(leaf, tf.RaggedTensor | tf.SparseTensor | tf.RaggedTensorSpec | tf.SparseTensorSpec):
        raise BaechiError(
            "B713",
            f"argument {position} is a {type(leaf).__name__}, and only dense tensors are placed",
            help="pad it, or call to_tensor()",
        )
    if isinstance(leaf, tf.TensorSpec):
        spec = leaf
    elif isinstance(leaf, tf.Tensor | np.ndarray | np.generic):
        spec = tf.TensorSpec(leaf.shape, tf.as_dtype(leaf.dtype))
    else:
        return leaf
    if not spec.shape.is_fully_defined():
        raise BaechiError(
            "B714",
            f"argument {position} has shape {spec.shape}",
            help="a step is placed for one size of batch: give a tensor, or a tf.TensorSpec without None",
        )
    return spec


def _untraceable(error: Exception) -> BaechiError:
    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    message = lines[-1] if lines else type(error).__name__
    line = LINES.innermost(error.__traceback__) or _quoted_line(text)
    at = f"{line}: " if line else ""
    if any(sign in text for sign in _CREATES):
        return BaechiError(
            "B712",
            f"{at}the step creates a tf.Variable when it is called",
            help="create variables once, outside the step; build the model and the optimiser first",
        )
    if isinstance(error, NotImplementedError) or any(sign in text for sign in _EAGER):
        return BaechiError(
            "B711",
            f"{at}the step runs only eagerly: it looks at the value of a tensor ({message})",
            help="use tf.cond, tf.where or tf.while_loop instead of Python's if, while, int() or .numpy() on a tensor",
        )
    return BaechiError(
        "B710",
        f"{at}the step cannot be traced: {type(error).__name__}: {message}",
        help="does it run as a tf.function with these arguments?",
    )


def _quoted_line(text: str) -> str:
    """AutoGraph says in its message where the user's code was."""
    quoted = [(LINES.name(name), number) for name, number in _FILE.findall(text)]
    return next((f"{name}:{number}" for name, number in reversed(quoted) if name), "")
