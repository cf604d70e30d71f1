"""The pipeline on one page: capture, place, verify, run."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from baechi.backends.reporting import Reporting
from baechi.config import parse_cluster
from baechi.cost import CostTable, Problem
from baechi.decorator import decorate
from baechi.errors import BaechiError, Infeasible
from baechi.ir.cluster import UNLIMITED_BYTES, Cluster, Device
from baechi.ir.graph import Graph
from baechi.ir.plan import Objective, Plan
from baechi.ir.verify import verify
from baechi.placers import Progress, Single, get_placer, make_plan
from baechi.placers.spare import could_help
from baechi.placers.trade import lighter
from baechi.planned import (
    ModelPlan,
    capture_model,
    conformed,
    kind_of_call,
    pinned,
    pinned_graph,
    report_plans,
    sensitivity_of,
    timeline_of,
)

if TYPE_CHECKING:
    import torch

    from baechi.backends.pytorch.placed import Planner
    from baechi.backends.tf.decorated import Planner as TensorFlowPlanner
    from baechi.frontends.pytorch import TorchProgram
    from baechi.frontends.tf import TensorFlowProgram

__all__ = [
    "ModelPlan",
    "dynamo_backend",
    "pinned",
    "place",
    "place_graph",
    "place_lighter",
    "plan",
    "resolve",
    "sensitivity_of",
    "timeline_of",
]

_PLACE_OPTIONS = ("cluster", "placer", "seed", "table", "objective", "budget", "recompute", "offload")


def plan(
    model: "torch.nn.Module",
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    loss: Any = None,
    target: Any = None,
    optimizer: Any = None,
    optimizer_options: Mapping[str, Any] | None = None,
    microbatches: int = 1,
    cluster: str | Cluster = "local",
    placer: str = "auto",
    seed: int = 0,
    table: CostTable | None = None,
    objective: Objective = "latency",
    budget: float | None = None,
    recompute: str = "off",
    offload: str = "off",
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
        microbatches: into how many the batch is split, so that devices work as a pipeline; gradients add up
            as in a plain loop over the parts, each with its loss over `microbatches`. Needs a loss.
        cluster: devices, such as ``4x2GiB``, ``2xrtx2080``, a TOML file or a `Cluster`.
        placer: name of a placer.
        seed: of its random choices.
        table: measured op times.
        objective: ``latency``, the time of one step, or ``throughput``, the highest load of a device.
        budget: seconds that ``auto`` may search.
        recompute: which activations may be made again for the backward pass: ``off``, ``auto`` (as many as it
            takes to fit), or a pattern of module paths such as ``layers.*``.
        offload: whether activations may wait in the host's memory: ``off`` or ``auto``.

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
    program = capture_model(
        model,
        args,
        kwargs,
        loss=loss,
        target=target,
        optimizer=optimizer,
        optimizer_options=optimizer_options,
        keep_gradients=optimizer is None,
        microbatches=microbatches,
    )
    devices = _devices(cluster)
    options = {} if budget is None else {"budget": budget}
    graph, made = place_lighter(
        program.graph,
        devices,
        placer,
        options=options,
        seed=seed,
        table=table,
        objective=objective,
        recompute=recompute,
        offload=offload,
    )
    program = conformed(program, graph)
    return ModelPlan(made, program, table, None if program.has_loss else kind_of_call(model, args, kwargs or {}))


def _devices(cluster: str | Cluster) -> Cluster:
    return parse_cluster(cluster) if isinstance(cluster, str) else cluster


def place_graph(
    graph: Graph,
    cluster: Cluster,
    placer: str = "auto",
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    table: CostTable | None = None,
    objective: Objective = "latency",
    show: Callable[[Progress], None] | None = None,
) -> Plan:
    """Place a graph and verify the plan; see `plan` for arguments and errors.

    Args:
        options: of the placer.
        show: called now and then while a placer searches.
    """
    problem = Problem(graph, resolve(graph, cluster, table), table, objective)
    made = make_plan(get_placer(placer, **(options or {})), problem, seed, show)
    _check(graph, made, placer)
    return made


def place_lighter(
    graph: Graph,
    cluster: Cluster,
    placer: str = "auto",
    *,
    recompute: str = "off",
    offload: str = "off",
    objective: Objective = "latency",
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    table: CostTable | None = None,
    show: Callable[[Progress], None] | None = None,
) -> tuple[Graph, Plan]:
    """Place a graph that may be recomputed and offloaded; returns the graph that the plan is for."""
    if recompute == offload == "off":
        try:
            return graph, place_graph(
                graph, cluster, placer, options=options, seed=seed, table=table, objective=objective, show=show
            )
        except Infeasible as error:
            flags = could_help(Problem(graph, resolve(graph, cluster, table), table))
            if not flags:
                raise
            more = "; less memory for more time: " + " or ".join(f"--{flag} auto" for flag in flags)
            raise Infeasible(error.code, error.what, help=error.help + more, proved=error.proved) from None
    problem = Problem(graph, resolve(graph, cluster, table), table, objective)
    found = lighter(
        problem, get_placer(placer, **(options or {})), recompute=recompute, offload=offload, seed=seed, show=show
    )
    _check(found.graph, found.plan, placer)
    return found.graph, found.plan


def _check(graph: Graph, made: Plan, placer: str) -> None:
    broken = verify(graph, made)
    if broken:
        raise AssertionError(f"placer '{placer}' made a plan that breaks its contract: {'; '.join(broken)}")


def resolve(graph: Graph, cluster: Cluster, table: CostTable | None = None) -> Cluster:
    """The cluster with its memory fractions turned into bytes of the step's single-device peak.

    In a replica, without what its exchange takes of the host's memory.
    """
    session = sys.modules.get("baechi.replicas.cluster.session")
    found = _in_bytes(graph, cluster, table)
    if session is None:
        return found
    from baechi.replicas.cluster.host_memory import beside_hub

    return beside_hub(graph, found, session.present())


def _in_bytes(graph: Graph, cluster: Cluster, table: CostTable | None) -> Cluster:
    if not cluster.needs_peak:
        return cluster
    first: Device = replace(cluster.devices[0], memory_bytes=UNLIMITED_BYTES, memory_fraction=None)
    alone = replace(cluster, devices=(first,), links={})
    return cluster.resolve(Single().place(graph, alone, table=table).predicted.peak_bytes[first.name])


def place(target: Any = None, **options: Any) -> Any:
    """Place a module, a module class, a step function, a `tf.function` or a Keras model; also as a decorator.

    Nothing happens before the first call. Then forward and backward are captured for the inputs'
    shapes, placed, and run as planned, here and in every later call with such inputs; the loop
    around them stays as it is, with its own loss and optimiser. Inputs of another shape or type, another
    mode or autocast are planned anew, which the logger ``baechi`` says once; earlier plans are kept.
    What forward does besides computing results and buffers, such as counting its calls, is done when
    it is captured and not at each call. A class stays the same class: `isinstance`, pickling and
    checkpoints do not change; a copy of a placed class's instance is placed at its first call, a copy of
    a single placed instance is plain. ``BAECHI_DISABLE=1`` leaves everything alone.

    Args:
        target: the module or class; a function runs with the modules among its arguments placed. Of
            TensorFlow, a step over or under ``@tf.function``, or a compiled Keras model, whose ``fit`` then
            trains as planned; the step's own variables move to their devices at the first call, and
            ``.baechi.close()`` brings them back, for functions that were traced before.
        options: ``cluster``, ``placer``, ``seed``, ``table``, ``objective``, ``budget``, ``recompute`` and
            ``offload`` as for `plan`; ``pin``, the path of a
            saved plan, or of several, of which one must match.

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
    reporter = partial(report_plans, table=options.get("table"))
    planner = Reporting(_planner("place()", options), reporter)
    tensorflow = Reporting(_tensorflow_planner(options), reporter)

    def devices() -> int:
        with suppress(BaechiError):  # the first call says what is wrong with it
            return len(_devices(options.get("cluster", "local")))
        return 1

    def placed(found: Any) -> Any:
        return decorate(found, planner, tensorflow, devices)

    return placed if target is None else placed(target)


def dynamo_backend(
    graph: "torch.fx.GraphModule", inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None, **unknown: Any
) -> "Callable[..., Any]":
    """What ``torch.compile(model, backend="baechi", options={…})`` calls for each graph that it finds.

    Forward and backward of a graph are placed together, for each shape of its inputs when it comes.
    Where torch breaks the model into several graphs, each is placed on its own.

    Args:
        graph: takes parameters, buffers and inputs as a flat list.
        inputs: examples of them.
        options: as for `place`.

    Raises:
        BaechiError: when the compiled function is called: B107 on an unknown option, and as for `plan`.
    """
    from baechi.backends.pytorch.compiled import Compiled

    return Compiled(graph, lambda: _planner("the backend", {**(options or {}), **unknown}))


def _tensorflow_planner(options: Mapping[str, Any]) -> "TensorFlowPlanner":
    """How a step of TensorFlow is planned: as pinned, like an earlier plan of another shape, or anew."""

    def planner(program: "TensorFlowProgram", like: Plan | None) -> Plan:
        if "pin" in options:
            return pinned_graph(program.graph, options["pin"])
        for option in ("recompute", "offload"):
            if options.get(option, "off") != "off":
                what = f"there is no {option} for TensorFlow"
                raise BaechiError("B108", what, help=f"leave {option}= out")
        if like is not None and (found := _placed_like(program.graph, like, options)) is not None:
            return found
        return place_graph(
            program.graph,
            _devices(options.get("cluster", "local")),
            options.get("placer", "auto"),
            options={"budget": options["budget"]} if "budget" in options else {},
            seed=options.get("seed", 0),
            table=options.get("table"),
            objective=options.get("objective", "latency"),
        )

    return planner


def _placed_like(graph: Graph, like: Plan, options: Mapping[str, Any]) -> Plan | None:
    """The same ops on the same devices, in the order that the simulator finds; None where that is impossible."""
    if any(op.name not in like.device for op in graph.ops):
        return None
    index = {name: i for i, name in enumerate(like.cluster.device)}
    split = graph.with_ops(replace(op, expert=index[like.device[op.name]]) for op in graph.ops)
    try:
        made = place_graph(split, like.cluster, "expert", table=options.get("table"))
    except Infeasible:
        return None
    return replace(made, graph=graph.digest)


def _planner(name: str, options: Mapping[str, Any]) -> "Planner":
    unknown = sorted(set(options) - {*_PLACE_OPTIONS, "pin"})
    if unknown:
        known = ", ".join((*_PLACE_OPTIONS, "pin"))
        raise BaechiError("B107", f"{name} has no option '{unknown[0]}'", help="options: " + known)

    def planner(
        module: "torch.nn.Module", args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> "tuple[TorchProgram, Plan]":
        if "pin" in options:
            made = pinned(module, args, kwargs, options["pin"])
        else:
            made = plan(module, args, kwargs, **options)
        return made.program, made.plan

    return planner
