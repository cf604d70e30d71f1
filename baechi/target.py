"""Where a graph comes from: a model of ours, a person's own code, or a file. What `TARGET` means on the command line."""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from baechi.errors import BaechiError
from baechi.frontends.workload import Defaults, read_expert, read_target, with_expert
from baechi.ir.graph import Graph
from baechi.jobs import DEFAULT_FRAMEWORK, Job, Program, host_of
from baechi.passes.lighten import Lighten
from baechi.passes.microbatch import microbatches as unrolled

__all__ = ["Target", "load_target", "module_of"]

_FORMS = "write models:NAME, package.module:callable, FILE.json or FILE.stg"


@dataclass(frozen=True, eq=False)
class Target:
    """A graph and what else is known of it.

    Args:
        description: plain data from which `load_target` loads it again.
        read: makes the graph of a file.
        job: the step to capture; None for a file.
        microbatches: into how many copies the step is unrolled.
        lighten: what of it is recomputed and offloaded.
    """

    description: Mapping[str, Any]
    read: Callable[[], tuple[Graph, Defaults]] | None = None
    job: Job | None = None
    microbatches: int = 1
    lighten: Lighten = field(default_factory=Lighten)

    @cached_property
    def graph(self) -> Graph:
        """The graph, captured or read."""
        graph = self.program.graph if self.job is not None else self._of_file
        return replace(graph, meta={**graph.meta, "target": dict(self.description)})

    @property
    def _of_file(self) -> Graph:
        return self.lighten(unrolled(self._file[0], self.microbatches))

    @cached_property
    def defaults(self) -> Defaults:
        """What a file says of its devices."""
        return Defaults() if self.read is None else self._file[1]

    @cached_property
    def _file(self) -> tuple[Graph, Defaults]:
        if self.read is None:
            raise BaechiError("B603", f"{self.name} is no file")
        return self.read()

    @property
    def name(self) -> str:
        """What a person calls it."""
        return str(self.description["name"])

    @cached_property
    def program(self) -> Program:
        """The captured step.

        Raises:
            BaechiError: B603 for a file, which has no code to run; B7xx as `Job.capture`.
        """
        program = self.code.capture(self.name, self.microbatches)
        return self.code.lightened(program, self.lighten(program.graph))

    @property
    def code(self) -> Job:
        """The step to capture.

        Raises:
            BaechiError: B603 for a file, which has none.
        """
        if self.job is None:
            raise BaechiError(
                "B603", f"'{self.name}' is a file of costs, not code", help="name a model to run: models:inception_v3"
            )
        return self.job

    def check_lightens(self) -> None:
        """Refuse recomputation and offloading before anything is placed, if the framework has neither.

        Raises:
            BaechiError: B108.
        """
        if self.job is not None:
            self.job.check_lightens()

    def lightened(self, lighten: Lighten) -> "Target":
        """The same step with more recomputed and offloaded, by the names of its plain ops and tensors."""
        return replace(self, description={**self.description, **lighten.described}, lighten=lighten)

    def with_expert(self, devices: int) -> Graph:
        """The graph with the split that the model's author or an expert gives for so many devices."""
        if self.job is None or self.job.expert is None:
            return self.graph
        expert = self.job.expert
        return self.graph.with_ops(
            replace(op, expert=expert(op.path, devices) if op.path else op.expert) for op in self.graph.ops
        )


def load_target(
    text: str,
    *,
    batch: int | None = None,
    options: Mapping[str, Any] | None = None,
    ignore_colocation: bool = False,
    expert: str | None = None,
    microbatches: int = 1,
    framework: str | None = None,
) -> Target:
    """Find what `text` names; nothing is captured or read yet.

    Args:
        text: ``models:inception_v3``; ``package.module:callable``, whose callable (called with
            ``batch=`` if it takes that) returns a `ModelSpec`, a ``(module, args)`` pair or a dict
            with ``module``, ``args``, ``kwargs``, ``target``, ``loss``, ``optimizer``,
            ``optimizer_options``, ``expert``; or a JSON or STG file. For TensorFlow the callable
            returns ``(step, args)`` of a ``tf.function`` that trains, ``(model, x, y)`` of a
            compiled Keras model and one batch, or a dict with ``step``, ``args``, ``kwargs`` or
            ``model``, ``x``, ``y``, ``sample_weight``, each with ``expert``; or it is itself a
            ``tf.function`` with an ``input_signature``, the step.
        batch: batch size of a model.
        options: the model's own options; of a file, ``cpus``, as for `read_target`.
        ignore_colocation: drop a file's colocation groups.
        expert: a file with an expert's split, for a file target.
        microbatches: into how many copies the step is unrolled.
        framework: ``pytorch`` or ``tensorflow``; when None, that of what a callable returns, and
            ``pytorch`` for a model.

    Raises:
        BaechiError: B108 on an unknown framework, B101 to B106 when there is no such target, B109 when a person's own code raises.

    Example:
        >>> load_target("models:mlp", batch=4).description
        {'name': 'mlp', 'target': 'models:mlp', 'batch': 4}
    """
    if microbatches < 1:
        raise BaechiError("B102", f"{microbatches} is no number of micro-batches", help="a whole number from 1 on")
    description: dict[str, Any] = {"target": text} | ({"microbatches": microbatches} if microbatches > 1 else {})
    if text.endswith((".json", ".stg")) or Path(text).is_file():
        description |= {"name": Path(text).stem, "target": str(Path(text).resolve())}
        if ignore_colocation:
            description["ignore_colocation"] = True
        if expert:
            description["expert"] = expert
        if options:
            description["options"] = dict(options)
        return Target(description, _reader(text, ignore_colocation, expert, options or {}), microbatches=microbatches)
    where, _, name = text.partition(":")
    if not name:
        raise BaechiError("B106", f"'{text}' is no target", help=_FORMS)
    if framework is not None:
        host_of(framework).begin()
    ours = where == "models"
    spec = _model(name, framework, options or {}) if ours else _call(where, name, batch, options or {})
    batch = batch or getattr(spec, "default_batch", None)
    if batch is not None and batch < 1:
        raise BaechiError("B102", f"a batch of {batch} is no batch", help="a whole number from 1 on")
    description = {"name": name, **description} | ({"batch": batch} if batch else {})
    if options:
        description["options"] = dict(options)
    job = _job(spec, text, batch, framework)
    if job.framework != DEFAULT_FRAMEWORK:
        description["framework"] = job.framework
    return Target(description, job=job, microbatches=microbatches)


def _reader(
    path: str, ignore_colocation: bool, expert: str | None, options: Mapping[str, Any]
) -> Callable[[], tuple[Graph, Defaults]]:
    cpus = options.get("cpus", 0)
    if set(options) - {"cpus"} or isinstance(cpus, bool) or not isinstance(cpus, int):
        given = ", ".join(f"{key}={value}" for key, value in options.items())
        raise BaechiError(
            "B102", f"'{path}' does not take {given}", help="of a file, --set cpus=1 takes its own CPU too"
        )

    def read() -> tuple[Graph, Defaults]:
        graph, defaults = read_target(path, ignore_colocation=ignore_colocation, cpus=cpus)
        return (with_expert(graph, read_expert(expert)) if expert else graph), defaults

    return read


def module_of(text: str, framework: str) -> str:
    """The module that has the code of a target.

    Example:
        >>> module_of("models:mlp", "pytorch"), module_of("package.steps:train", "pytorch")
        ('baechi.models.mlp', 'package.steps')
    """
    where, _, name = text.partition(":")
    if where != "models":
        return where
    return f"baechi.models.{name}" if framework == DEFAULT_FRAMEWORK else f"baechi.models.tf.{name}"


def _model(name: str, framework: str | None, options: Mapping[str, Any]) -> Any:
    return host_of(framework or DEFAULT_FRAMEWORK).model(name, options)


def _call(where: str, name: str, batch: int | None, options: Mapping[str, Any]) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:  # as `python -m` does: a person's own module lies beside them
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(where)
        if "tensorflow" in sys.modules:
            host_of("tensorflow").begin()  # before the callable makes a tensor
        made = getattr(module, name)
    except ImportError as error:
        raise BaechiError("B106", f"'{where}' cannot be imported: {error}", help=_FORMS) from None
    except AttributeError:
        raise BaechiError("B106", f"module '{where}' has no '{name}'", help=_FORMS) from None
    except Exception as error:
        raise _theirs(where, error) from error
    if host_of("tensorflow").is_step(made):
        return made
    if not callable(made):
        raise BaechiError("B106", f"'{where}:{name}' is not callable", help="it must return (module, args) or a dict")
    signature = inspect.signature(made)
    arguments = {**options, **({"batch": batch} if "batch" in signature.parameters and batch else {})}
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise BaechiError("B102", f"'{where}:{name}' cannot be called: {error}", help=f"it takes {signature}") from None
    try:
        return made(**arguments)
    except Exception as error:
        raise _theirs(f"{where}:{name}", error) from error


def _theirs(what: str, error: Exception) -> BaechiError:
    """Code that is not ours may raise anything; the last of its lines that ran says where."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    at = f"{last.filename}:{last.lineno}" if not isinstance(error, SyntaxError) else f"{error.filename}:{error.lineno}"
    return BaechiError("B109", f"'{what}' raised {type(error).__name__}: {error}", help=f"at {at}")


def _job(spec: Any, text: str, batch: int | None, framework: str | None) -> Job:
    found = framework or _framework_of(spec)
    job = host_of(found).job_of(spec, batch)
    if job is None:
        raise BaechiError("B106", f"'{text}' returned {type(spec).__name__}", help="return " + host_of(found).forms)
    return job


def _framework_of(spec: Any) -> str:
    """Whose step a person's callable returned; the default one's when that cannot be told."""
    if isinstance(spec, Mapping):
        return "tensorflow" if {"step", "model"} & set(spec) else DEFAULT_FRAMEWORK
    tensorflow = sys.modules.get("tensorflow")  # who returns a step of it has imported it
    first = spec[0] if isinstance(spec, tuple) and spec else spec
    kinds = () if tensorflow is None else (tensorflow.types.experimental.PolymorphicFunction, tensorflow.keras.Model)
    return "tensorflow" if isinstance(first, kinds) else DEFAULT_FRAMEWORK
