"""A plan of a captured model: saved, checked against the model, and put to use."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from baechi.backends.reporting import Reporting
from baechi.cost import CostTable, Problem
from baechi.errors import BaechiError
from baechi.ir.graph import Graph
from baechi.ir.json import read_plan, write_plan
from baechi.ir.plan import Plan
from baechi.ir.timeline import Timeline
from baechi.passes.lighten import Lighten
from baechi.report.files import Step
from baechi.sim import simulate
from baechi.sim.perturb import Sensitivity, sensitivity

if TYPE_CHECKING:
    import torch

    from baechi.backends.pytorch.executor import Executor
    from baechi.backends.pytorch.workers.training import Training
    from baechi.frontends.pytorch import TorchProgram

__all__ = [
    "ModelPlan",
    "capture_model",
    "conformed",
    "kind_of_call",
    "pinned",
    "pinned_graph",
    "report_plans",
    "sensitivity_of",
    "timeline_of",
]


def timeline_of(graph: Graph, made: Plan, table: CostTable | None = None) -> Timeline:
    """What the simulator expects of a plan, op by op."""
    return simulate(Problem(graph, made.cluster, table), made)


def sensitivity_of(graph: Graph, made: Plan, spread: float, table: CostTable | None = None) -> Sensitivity:
    """What a plan is worth when all costs are wrong by up to `spread`; see `baechi.sim.perturb.sensitivity`."""
    return sensitivity(Problem(graph, made.cluster, table, made.objective), made, spread, seed=made.seed)


@dataclass(frozen=True, eq=False)
class ModelPlan:
    """A plan and the captured step that it is for.

    Args:
        plan: the plan, as data.
        program: the step.
        table: the measured op times that the plan was made with.
        kind: of the call that was planned, when the step has no loss of its own.
    """

    plan: Plan
    program: "TorchProgram"
    table: CostTable | None = None
    kind: object = None

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

    def worker(self, build: "torch.nn.Module | Callable[[], torch.nn.Module]", *, capped: bool = True) -> "Training":
        """This process's share of the training, as one of the workers that ``torchrun`` started.

        Every worker makes the same calls, with the same seed and the same inputs. The plan of rank 0
        counts, so it does not matter when others find another.

        Args:
            build: makes the model. Its weights are those of a plain build, yet only the share of this
                process is ever in its memory; of a model that is given whole the share is copied.
            capped: whether the process is held to the memory of its device.

        Raises:
            BaechiError: B606 when torchrun did not start this process or the step was planned without a
                loss, B618 when there are not as many workers as devices in the plan.
        """
        from baechi.backends.pytorch.workers.emit import make_parts
        from baechi.backends.pytorch.workers.training import begin
        from baechi.backends.pytorch.workers.world import find_world

        world = find_world()
        if world.rank == 0:
            with world.telling():
                world.publish(make_parts(self.program, self.plan, self.timeline))
        return begin(world.part(), build, world, capped=capped)

    def apply(self, model: "torch.nn.Module") -> "Callable[..., Any]":
        """Run the model as planned.

        Planned with a loss, this gives a function of the inputs and the target that trains one step
        and returns the loss; the weights are the model's own when `sync` or `close` is called on it.
        Planned without, it gives the model itself, whose forward and backward now run as planned.

        Raises:
            BaechiError: B402, when the model is called, if the call is not the one that was planned.
        """
        from baechi.backends.pytorch.placed import PlacedStep, attach

        if self.program.has_loss:
            return PlacedStep(self.executor(model), model)

        def planner(module: "torch.nn.Module", args: Any, kwargs: Any) -> "tuple[TorchProgram, Plan]":
            if self.kind == kind_of_call(module, args, kwargs):
                return self.program, self.plan
            found = _matching(module, args, kwargs, [self.plan], "the plan")
            return found.program, found.plan

        return attach(model, Reporting(planner, partial(report_plans, table=self.table)))

    def report(self, path: str) -> None:
        """Write a page about the step: timeline, memory, what limits it, what would help.

        Raises:
            BaechiError: B404 when it cannot be written, B407 when Bokeh is not there.
        """
        report_plans([(self.program.graph, self.plan)], path, self.table)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from baechi.report.page.notebook import notebook_html

        return notebook_html(Step(self.program.graph.name, self.plan, self.program.graph, self.timeline, self.table))


def report_plans(placed: Sequence[tuple[Graph, Plan]], path: str, table: CostTable | None = None) -> None:
    """Write a page about plans, which compares them when there are several; errors as `ModelPlan.report`.

    Args:
        placed: graphs and their plans, made with the same table.
        path: of the page.
        table: the measured op times in them.
    """
    from baechi.report.page.write import write_report

    names = [f"{graph.name}, plan {k}" if len(placed) > 1 else graph.name for k, (graph, _) in enumerate(placed, 1)]
    steps = [
        Step(name, made, graph, timeline_of(graph, made, table), table)
        for name, (graph, made) in zip(names, placed, strict=True)
    ]
    write_report(steps, path)


def pinned(
    model: "torch.nn.Module", args: Sequence[Any], kwargs: Mapping[str, Any], path: str | Sequence[str]
) -> "ModelPlan":
    """A module's forward and backward under a plan that was saved before.

    Args:
        path: of the plan, or of several, of which the one that matches is taken.

    Raises:
        BaechiError: B402 when the plan is for another step; it is never made anew silently.
    """
    paths = (path,) if isinstance(path, str) else tuple(path)
    return _matching(model, args, kwargs, [read_plan(p) for p in paths], ", ".join(f"'{p}'" for p in paths))


def pinned_graph(graph: Graph, path: str | Sequence[str]) -> Plan:
    """The plan for a captured graph among those that were saved before.

    Args:
        path: of the plan, or of several.

    Raises:
        BaechiError: B402 when none is for this graph.
    """
    paths = (path,) if isinstance(path, str) else tuple(path)
    for made in map(read_plan, paths):
        if made.graph == graph.digest:
            return made
    raise _other_step(", ".join(f"'{p}'" for p in paths))


def _matching(
    model: "torch.nn.Module", args: Sequence[Any], kwargs: Mapping[str, Any], plans: Sequence[Plan], name: str
) -> "ModelPlan":
    """The model captured for these inputs, with the plan that is for it."""
    program = capture_model(model, args, kwargs, keep_gradients=True)
    for made in plans:
        with suppress(BaechiError):  # names of another step
            found = conformed(program, Lighten.of(made.target)(program.graph))
            if made.graph == found.graph.digest:
                return ModelPlan(made, found)
    raise _other_step(name)


def _other_step(name: str) -> BaechiError:
    return BaechiError(
        "B402",
        f"{name} is for another step than this one",
        help="a plan holds for one mode (train or eval), shape and type of the inputs: place the model again, "
        "or pin one for each",
    )


def capture_model(model: "torch.nn.Module", *args: Any, loss: Any = None, **kwargs: Any) -> "TorchProgram":
    """Capture the model as it was written, even if it is placed already.

    Without a loss that is its forward: the model's own hooks stay around it.
    """
    from baechi.backends.pytorch.kinds import open_objects
    from baechi.backends.pytorch.placed import untouched, without_hooks
    from baechi.frontends.pytorch import capture

    with untouched(), without_hooks(model) if loss is None else nullcontext():
        program = capture(model, *args, loss=loss, **kwargs)
        # A result of a class that torch did not know of hid its tensors from the first capture.
        return capture(model, *args, loss=loss, **kwargs) if open_objects(program.fixed) else program


def conformed(program: "TorchProgram", graph: Graph) -> "TorchProgram":
    """The program of a graph that was recomputed or offloaded."""
    from baechi.frontends.pytorch import conform

    return conform(program, graph)


def kind_of_call(model: "torch.nn.Module", args: Sequence[Any], kwargs: Mapping[str, Any]) -> object:
    """What a plan of a model's forward depends on: its inputs, its mode, its structure."""
    from baechi.backends.pytorch.kinds import kind_of

    return kind_of(model, args, kwargs)
