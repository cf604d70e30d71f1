"""The pipeline on one page: capture, place, verify, run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from baechi.config import parse_cluster
from baechi.cost import CostTable, Problem
from baechi.decorator import decorate
from baechi.errors import BaechiError
from baechi.ir.cluster import UNLIMITED_BYTES, Cluster, Device
from baechi.ir.graph import Graph
from baechi.ir.json import read_plan, write_plan
from baechi.ir.plan import Plan
from baechi.ir.timeline import Timeline
from baechi.ir.verify import verify
from baechi.placers import Single, get_placer, make_plan
from baechi.sim import simulate

if TYPE_CHECKING:
    import torch

    from baechi.backends.pytorch.executor import Executor
    from baechi.frontends.pytorch import TorchProgram

__all__ = ["ModelPlan", "pinned", "place", "place_graph", "plan", "resolve", "timeline_of"]

_PLACE_OPTIONS = ("cluster", "placer", "seed", "table")


def plan(
    model: "torch.nn.Module",
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    loss: Any = None,
    target: Any = None,
    optimizer: Any = None,
    optimizer_options: Mapping[str, Any] | None = None,
    cluster: str | Cluster = "local",
    placer: str = "auto",
    seed: int = 0,
    table: CostTable | None = None,
) -> "ModelPlan":
    """Capture a training step of a model and place it.

    Args:
        model: any module; it is looked at, not changed.
        args: example inputs, tensors of which only shape and type matter.
        kwargs: the same, by name.
        loss: ``loss(output, target)``, or ``loss(output)`` without a target, or ``"output"``; None
            when your own loop computes the loss.
        target: an example of the loss's second argument.
        optimizer: a `torch.optim` name, class or instance; None when your own loop has one.
        optimizer_options: its options.
        cluster: devices, such as ``4x2GiB``, ``2xrtx2080``, a TOML file or a `Cluster`.
        placer: name of a placer.
        seed: of its random choices.
        table: measured op times.

    Returns:
        The plan, which can be applied to the model.

    Raises:
        Infeasible: B501 when no plan can fit, B502 when none was found.
        BaechiError: B3xx on a bad cluster, B5xx on a bad placer, B7xx when the model cannot be captured.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(3, 2)
        >>> placed = plan(model, (torch.ones(4, 3),), loss=torch.sum, optimizer="sgd", cluster="2x1MiB")
        >>> sorted(set(placed.plan.device.values())) <= ["cpu:0", "cpu:1"]
        True
    """
    program = _captured(
        model,
        args,
        kwargs,
        loss=loss,
        target=target,
        optimizer=optimizer,
        optimizer_options=optimizer_options,
        keep_gradients=optimizer is None,
    )
    devices = parse_cluster(cluster) if isinstance(cluster, str) else cluster
    made = place_graph(program.graph, devices, placer, seed=seed, table=table)
    return ModelPlan(made, program, table)


def pinned(model: "torch.nn.Module", args: Sequence[Any], kwargs: Mapping[str, Any], path: str) -> "ModelPlan":
    """A module's forward and backward under a plan that was saved before.

    Raises:
        BaechiError: B402 when the plan is for another step; it is never made anew silently.
    """
    program, saved = _captured(model, args, kwargs, keep_gradients=True), read_plan(path)
    if saved.graph != program.graph.digest:
        raise BaechiError("B402", f"'{path}' is for another step than this one", help="place the model again")
    return ModelPlan(saved, program)


def _captured(model: "torch.nn.Module", *args: Any, **kwargs: Any) -> "TorchProgram":
    """Capture the model as it was written, even if it is placed already."""
    from baechi.backends.pytorch.placed import untouched
    from baechi.frontends.pytorch import capture

    with untouched():
        return capture(model, *args, **kwargs)


def place_graph(
    graph: Graph,
    cluster: Cluster,
    placer: str = "auto",
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    table: CostTable | None = None,
) -> Plan:
    """Place a graph and verify the plan; see `plan` for arguments and errors."""
    problem = Problem(graph, resolve(graph, cluster, table), table)
    made = make_plan(get_placer(placer, **(options or {})), problem, seed)
    broken = verify(graph, made)
    if broken:
        raise AssertionError(f"placer '{placer}' made a plan that breaks its contract: {'; '.join(broken)}")
    return made


def resolve(graph: Graph, cluster: Cluster, table: CostTable | None = None) -> Cluster:
    """The cluster with its memory fractions turned into bytes of the step's single-device peak."""
    if not cluster.needs_peak:
        return cluster
    first: Device = replace(cluster.devices[0], memory_bytes=UNLIMITED_BYTES, memory_fraction=None)
    alone = replace(cluster, devices=(first,), links={})
    return cluster.resolve(Single().place(graph, alone, table=table).predicted.peak_bytes[first.name])


def timeline_of(graph: Graph, made: Plan, table: CostTable | None = None) -> Timeline:
    """What the simulator expects of a plan, op by op."""
    return simulate(Problem(graph, made.cluster, table), made)


@dataclass(frozen=True, eq=False)
class ModelPlan:
    """A plan and the captured step that it is for.

    Args:
        plan: the plan, as data.
        program: the step.
        table: the measured op times that the plan was made with.
    """

    plan: Plan
    program: "TorchProgram"
    table: CostTable | None = None

    @cached_property
    def timeline(self) -> Timeline:
        """What the simulator expects, op by op."""
        return timeline_of(self.program.graph, self.plan, self.table)

    def save(self, path: str) -> None:
        """Write the plan as JSON."""
        write_plan(self.plan, path)

    def executor(self, model: "torch.nn.Module") -> "Executor":
        """What runs the whole step: a copy of the model's weights, placed; ``executor.step(*inputs)`` trains."""
        from baechi.backends.pytorch.executor import Executor

        return Executor(self.program, self.plan).load(model)

    def apply(self, model: "torch.nn.Module") -> "Callable[..., Any]":
        """Run the model as planned.

        Planned with a loss, this gives a function of the inputs and the target that trains one step
        and returns the loss; the weights are the model's own when `sync` or `close` is called on it.
        Planned without, it gives the model itself, whose forward and backward now run as planned.
        """
        from baechi.backends.pytorch.placed import PlacedStep, attach

        if self.program.has_loss:
            return PlacedStep(self.executor(model), model)
        return attach(model, lambda module, args, kwargs: (self.program, self.plan))


def place(target: Any = None, **options: Any) -> Any:
    """Place a module, a module class, or a step function; usable as a decorator, with or without options.

    Nothing happens before the first call. Then forward and backward are captured for the inputs'
    shapes, placed, and run as planned, here and in every later call with such inputs; the loop
    around them stays as it is, with its own loss and optimiser. A class stays the same class:
    `isinstance`, pickling and checkpoints do not change. ``BAECHI_DISABLE=1`` leaves everything alone.

    Args:
        target: the module or class; a function runs with the modules among its arguments placed.
        options: ``cluster``, ``placer``, ``seed`` and ``table`` as for `plan`; ``pin``, the path of a
            saved plan, which must match.

    Raises:
        BaechiError: B107 on an unknown option, or a target that is none of these.

    Example:
        >>> import torch
        >>> @place(cluster="2x1MiB")
        ... class Net(torch.nn.Linear):
        ...     pass
        >>> Net(3, 2)(torch.ones(1, 3)).shape
        torch.Size([1, 2])
    """
    unknown = sorted(set(options) - {*_PLACE_OPTIONS, "pin"})
    if unknown:
        known = ", ".join((*_PLACE_OPTIONS, "pin"))
        raise BaechiError("B107", f"place() has no option '{unknown[0]}'", help="options: " + known)

    def planner(
        module: "torch.nn.Module", args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> "tuple[TorchProgram, Plan]":
        if "pin" in options:
            made = pinned(module, args, kwargs, options["pin"])
        else:
            made = plan(module, args, kwargs, **options)
        return made.program, made.plan

    return (lambda found: decorate(found, planner)) if target is None else decorate(target, planner)
