"""Where a graph comes from: a model of ours, a person's own code, or a file. What `TARGET` means on the command line."""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baechi.errors import BaechiError
from baechi.frontends.workload import Defaults, read_expert, read_target, with_expert
from baechi.ir.graph import Graph
from baechi.ir.op import Op
from baechi.passes.lighten import Lighten
from baechi.passes.microbatch import microbatches as unrolled

if TYPE_CHECKING:
    import torch

    from baechi.frontends.pytorch import TorchProgram

__all__ = ["Job", "Target", "load_target"]

_FORMS = "write models:NAME, package.module:callable, FILE.json or FILE.stg"
_FIELDS = ("module", "args", "kwargs", "target", "loss", "optimizer", "optimizer_options", "expert")


@dataclass(frozen=True, eq=False)
class Job:
    """A training step to capture and run.

    Attributes:
        build: makes the module.
        args, kwargs, target: example inputs.
        loss: as for `capture`.
        optimizer: name, class or instance; `optimizer_options` over it.
        expert: from a module path and a number of devices to a device.
    """

    build: "Callable[[], torch.nn.Module]"
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None
    target: Any = None
    loss: Any = "output"
    optimizer: Any = "sgd"
    optimizer_options: Mapping[str, Any] | None = None
    expert: Callable[[str, int], int | None] | None = None

    @property
    def inputs(self) -> list[Any]:
        """All that a step takes, as it is flattened: args, kwargs and, if there is one, the target."""
        return [tuple(self.args), dict(self.kwargs or {}), *([] if self.target is None else [self.target])]


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
    def program(self) -> "TorchProgram":
        """The captured step.

        Raises:
            BaechiError: B603 for a file, which has no code to run; B7xx as `capture`.
        """
        if self.job is None:
            raise BaechiError(
                "B603", f"'{self.name}' is a file of costs, not code", help="name a model to run: models:inception_v3"
            )
        from baechi.frontends.pytorch import build_meta, capture, conform

        job = self.job
        program = capture(
            build_meta(job.build),
            job.args,
            job.kwargs,
            loss=job.loss,
            target=job.target,
            optimizer=job.optimizer,
            optimizer_options=job.optimizer_options,
            name=self.name,
            microbatches=self.microbatches,
        )
        return conform(program, self.lighten(program.graph))

    def lightened(self, lighten: Lighten) -> "Target":
        """The same step with more recomputed and offloaded, by the names of its plain ops and tensors."""
        return replace(self, description={**self.description, **lighten.described}, lighten=lighten)

    def with_expert(self, devices: int) -> Graph:
        """The graph with the split that the model's author or an expert gives for so many devices."""
        if self.job is None or self.job.expert is None:
            return self.graph
        expert = self.job.expert
        paths = [op.module or _owner(op) for op in self.graph.ops]
        return self.graph.with_ops(
            replace(op, expert=expert(path, devices) if path else op.expert)
            for op, path in zip(self.graph.ops, paths, strict=True)
        )


def load_target(
    text: str,
    *,
    batch: int | None = None,
    options: Mapping[str, Any] | None = None,
    ignore_colocation: bool = False,
    expert: str | None = None,
    microbatches: int = 1,
) -> Target:
    """Find what `text` names; nothing is captured or read yet.

    Args:
        text: ``models:inception_v3``; ``package.module:callable``, whose callable (called with
            ``batch=`` if it takes that) returns a `ModelSpec`, a ``(module, args)`` pair or a dict
            with ``module``, ``args``, ``kwargs``, ``target``, ``loss``, ``optimizer``,
            ``optimizer_options``, ``expert``; or a JSON or STG file.
        batch: batch size of a model.
        options: the model's own options.
        ignore_colocation: drop a file's colocation groups.
        expert: a file with an expert's split, for a file target.
        microbatches: into how many copies the step is unrolled.

    Raises:
        BaechiError: B101 to B106 when there is no such target, B109 when a person's own code raises.

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
        return Target(description, _reader(text, ignore_colocation, expert), microbatches=microbatches)
    where, _, name = text.partition(":")
    if not name:
        raise BaechiError("B106", f"'{text}' is no target", help=_FORMS)
    spec = _model(name, options or {}) if where == "models" else _call(where, name, batch, options or {})
    batch = batch or getattr(spec, "default_batch", None)
    if batch is not None and batch < 1:
        raise BaechiError("B102", f"a batch of {batch} is no batch", help="a whole number from 1 on")
    description = {"name": name, **description} | ({"batch": batch} if batch else {})
    if options:
        description["options"] = dict(options)
    return Target(description, job=_job(spec, text, batch), microbatches=microbatches)


def _owner(op: Op) -> str:
    """The module whose own parameter or buffer an op makes or updates; its group names that."""
    return (op.group or "").partition(":")[2].rpartition(".")[0]


def _reader(path: str, ignore_colocation: bool, expert: str | None) -> Callable[[], tuple[Graph, Defaults]]:
    def read() -> tuple[Graph, Defaults]:
        graph, defaults = read_target(path, ignore_colocation=ignore_colocation)
        return (with_expert(graph, read_expert(expert)) if expert else graph), defaults

    return read


def _model(name: str, options: Mapping[str, Any]) -> Any:
    from baechi.models.base import get

    return get(name, **options)


def _call(where: str, name: str, batch: int | None, options: Mapping[str, Any]) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:  # as `python -m` does: a person's own module lies beside them
        sys.path.insert(0, here)
    try:
        made = getattr(importlib.import_module(where), name)
    except ImportError as error:
        raise BaechiError("B106", f"'{where}' cannot be imported: {error}", help=_FORMS) from None
    except AttributeError:
        raise BaechiError("B106", f"module '{where}' has no '{name}'", help=_FORMS) from None
    except Exception as error:
        raise _theirs(where, error) from error
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


def _job(spec: Any, text: str, batch: int | None) -> Job:
    from baechi.models.base import ModelSpec

    if isinstance(spec, ModelSpec):
        args, target = spec.example(batch or spec.default_batch)
        return Job(spec.build, args, None, target, spec.loss, spec.optimizer[0], spec.optimizer[1], spec.expert)
    if isinstance(spec, tuple) and len(spec) == 2:
        spec = {"module": spec[0], "args": spec[1]}
    if not (isinstance(spec, Mapping) and "module" in spec and set(spec) <= set(_FIELDS)):
        raise BaechiError(
            "B106",
            f"'{text}' returned {type(spec).__name__}",
            help="return (module, args), or a dict of " + ", ".join(_FIELDS),
        )
    rest = dict(spec)
    module = rest.pop("module")
    return Job(lambda: module, tuple(rest.pop("args", ())), **rest)
