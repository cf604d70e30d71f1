"""Capture one training step of any module, without its weights."""

import contextlib
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils import _pytree as pytree

from baechi.errors import BaechiError
from baechi.frontends.pytorch import kernels
from baechi.frontends.pytorch.adapter import trace_joint
from baechi.frontends.pytorch.batches import split_tensors
from baechi.frontends.pytorch.fallback import trace_step
from baechi.frontends.pytorch.graph import build
from baechi.frontends.pytorch.joint import Joint, Role, tidy
from baechi.frontends.pytorch.modules import Fixed, Step, find_weights, to_fake, unchanged
from baechi.frontends.pytorch.optimizers import optimizer_spec
from baechi.frontends.pytorch.program import OptimizerSpec, TorchProgram
from baechi.frontends.pytorch.provenance import LINES, provenance
from baechi.frontends.pytorch.seeding import unseeded
from baechi.frontends.pytorch.sharing import check_apart
from baechi.frontends.pytorch.unroll import unroll
from baechi.ir.graph import Graph

__all__ = ["capture"]

Loss = Callable[..., Any] | str
Tracer = Callable[[Step, Sequence[Tensor]], Joint]
_WAYS: tuple[tuple[Tracer, bool], ...] = ((trace_joint, True), (trace_step, True), (trace_joint, False))
"""Tracers in the order in which they are tried, and whether the code is told that it is being compiled."""
_DATA_DEPENDENT = (DataDependentOutputException, DynamicOutputShapeException, GuardOnDataDependentSymNode)


def capture(
    module: nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    loss: Loss | None = None,
    target: Any = None,
    optimizer: str | type[torch.optim.Optimizer] | torch.optim.Optimizer | None = None,
    optimizer_options: Mapping[str, Any] | None = None,
    name: str = "",
    portable: bool = False,
    keep_gradients: bool = False,
    microbatches: int = 1,
) -> TorchProgram:
    """Capture forward, backward and update of a module as one graph.

    Nothing is computed and nothing is allocated: only shapes, types and strides are looked at.
    The module is left as it was, in train or eval mode as it is.

    Args:
        module: on any device, ``meta`` included.
        args: example tensors, or whatever else the module takes.
        kwargs: the same, by name.
        loss: ``loss(output, target)``, or ``loss(output)`` without a target; ``"output"`` when the
            module's output (its ``.loss``, its first element) is the loss; None for a step that is
            fed the gradients of its outputs.
        target: example of the second argument of the loss.
        optimizer: a name such as ``adam``, a class or an instance; None for no update.
        optimizer_options: hyper-parameters, over those of the optimiser.
        name: of the graph; the module's class otherwise.
        portable: only generic operators, none that exists for the CPU alone.
        keep_gradients: gradients stay allocated from step to step.
        microbatches: into how many the batch is split. The step then trains on one after the other and
            updates once, with the mean of their gradients: what a loop over ``chunk(microbatches)`` of the
            inputs, with ``(loss / microbatches).backward()``, does on one device. Split are the tensors whose
            first dimension is that of the first tensor input that has dimensions; all others are
            given whole to each micro-batch.

    Raises:
        BaechiError: B701 on control flow that depends on data, B702 when the code cannot be
            traced, B703 when the inputs are not the module's, B704 on a bad loss or optimiser, B705 when
            the code seeds the random numbers, B706 when weights share memory without being tied, B707 on
            a sparse tensor, B708 when the batch cannot be split into micro-batches, B709 on micro-batches without a loss.

    Example:
        >>> program = capture(nn.Linear(3, 2), (torch.ones(4, 3),), loss=torch.sum, optimizer="sgd")
        >>> program.gradients
        {'weight': 'mm', 'bias': 'view'}
    """
    spec = optimizer_spec(optimizer, optimizer_options, module)
    _check_inputs(module, args, kwargs or {})
    leaves, tree = pytree.tree_flatten((tuple(args), dict(kwargs or {}), target))
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    plain = [t.detach() for t in leaves if isinstance(t, Tensor)]
    part = split_tensors(plain, microbatches, loss)[0]
    wanting = [loss is None and t.requires_grad for t in leaves if isinstance(t, Tensor)]
    with unchanged(module):
        with mode:
            whole = {i: to_fake(plain[i]) for i in part}
            traced = [part.get(i, t) for i, t in enumerate(plain)]
            tensors = [to_fake(t).requires_grad_(wants) for t, wants in zip(traced, wanting, strict=True)]
            step = _step(module, [None if isinstance(t, Tensor) else Fixed(t) for t in leaves], tree, loss, target)
        with _tracing(step, portable):
            joint = _trace(step, tensors)
    positions = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    joint = _with_assigned(joint, step.assigned)
    joint = tidy(joint, {node: _placeholder(role, positions) for node, role in joint.roles.items()})
    if microbatches > 1:
        joint = unroll(joint, microbatches, whole)
    return _program(joint, step, leaves, positions, spec, name or type(module).__name__, keep_gradients)


def _check_inputs(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(module.forward)
    except ValueError:
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise BaechiError(
            "B703",
            f"the inputs do not fit {type(module).__name__}.forward{signature}: {error}",
            help="give example inputs as args=(…) and kwargs={…}",
        ) from None


def _step(module: nn.Module, leaves: Sequence[Any], tree: Any, loss: Loss | None, target: Any) -> Step:
    weights = find_weights(module)
    check_apart(weights.parameters, weights.buffers)
    fakes = {name: to_fake(t) for name, t in weights.buffers.items()}
    # What stands in for a parameter, as in `torch.func.functional_call`, may be no Parameter itself.
    fakes |= {n: nn.Parameter(to_fake(t), requires_grad=t.requires_grad) for n, t in weights.parameters.items()}
    for owner in module.modules():
        for key, value in list(vars(owner).items()):
            if isinstance(value, Tensor) and value.is_meta:
                vars(owner)[key] = to_fake(value)
    return Step(module, weights, fakes, leaves, tree, loss, target is not None)


@contextlib.contextmanager
def _tracing(step: Step, portable: bool) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(unseeded())
        stack.enter_context(torch.enable_grad())
        # A failing shape rule is reported once, as an error of ours, not logged with its traceback.
        stack.enter_context(mock.patch.object(logging.getLogger("torch._subclasses.fake_tensor"), "disabled", True))
        stack.enter_context(kernels.portable() if portable else kernels.unfused_rnns())
        stack.enter_context(provenance(step))
        yield


def _trace(step: Step, tensors: Sequence[Tensor]) -> Joint:
    """By the joint exporter; what that cannot express, in other ways."""
    failed: list[Exception] = []
    for tracer, compiling in _WAYS:
        try:
            return _told(tracer, step, tensors, compiling=compiling)
        except BaechiError:
            raise
        except Exception as error:  # noqa: BLE001  what user code raises, under a tracer that raises its own kinds
            failed.append(error)
        if _data_dependent(failed[0]):
            break
    reason = next(filter(_data_dependent, failed), None)
    if reason is not None:
        raise _control_flow(reason) from reason
    raise _untraceable(failed[0]) from failed[0]


def _told(tracer: Tracer, step: Step, tensors: Sequence[Tensor], *, compiling: bool) -> Joint:
    """Trace code that asks `torch.compiler.is_compiling`.

    Code that looks at values unless it is being compiled (masks of transformers) must not look; code
    that leaves out more than that when it is compiled is traced as eager code.
    """
    with mock.patch.object(torch.compiler, "_is_compiling_flag", compiling):
        return tracer(step, tensors)


def _data_dependent(error: BaseException) -> bool:
    if isinstance(error, _DATA_DEPENDENT):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("value out of a tracing tensor" in text or "data-dependent" in text)


def _control_flow(error: BaseException) -> BaechiError:
    line = LINES.innermost(error.__traceback__) or "the module"
    if isinstance(error, DynamicOutputShapeException):
        return BaechiError(
            "B701",
            f"{line}: the shape of a result depends on the data ({error})",
            help="a step is placed once for all data: use masks and fixed sizes instead of nonzero or boolean indexing; "
            "in a mixture of experts, run each expert on all tokens and weight the results",
        )
    return BaechiError(
        "B701",
        f"{line}: the program looks at the value of a tensor, so the graph depends on the data",
        help="a step is placed once for all data: use torch.where or a mask instead of if, while, int() or .item() on a tensor",
    )


def _untraceable(error: BaseException) -> BaechiError:
    line = LINES.innermost(error.__traceback__)
    message = (str(error).strip() or type(error).__name__).splitlines()[0]
    return BaechiError(
        "B702",
        f"{line + ': ' if line else ''}the step cannot be traced: {message}",
        help="does the module run with these inputs, loss and target in eager mode?",
    )


def _program(
    joint: Joint,
    step: Step,
    leaves: Sequence[Any],
    positions: Sequence[int],
    optimizer: OptimizerSpec | None,
    name: str,
    keep_gradients: bool,
) -> TorchProgram:
    built = build(joint, optimizer, keep_gradients=keep_gradients)
    inputs: list[str | None] = [None] * (len(leaves) if step.with_target else len(leaves) - 1)
    for index, position in enumerate(positions):
        inputs[position] = built.by_role.get(Role("input", index=index))
    results = iter(built.results[n][0] for n in joint.outputs)
    assert step.output_spec is not None  # set by the forward pass that was just traced
    meta = {"frontend": "pytorch", "optimizer": optimizer.name if optimizer else ""}
    weights = step.weights
    return TorchProgram(
        graph=Graph(tuple(built.ops.values()), name, meta),
        module=joint.module,
        nodes=built.nodes,
        values=built.values,
        parameters={n: built.by_role[Role("parameter", n)] for n in weights.parameters},
        buffers={n: built.by_role[Role("buffer", n)] for n in weights.buffers},
        constants=built.constants,
        inputs=tuple(inputs),
        tangents=tuple(built.by_role[r] for r in joint.roles.values() if r.kind == "tangent"),
        outputs=tuple(next(results) if tensor else None for tensor in step.is_tensor),
        fixed=step.fixed,
        output_spec=step.output_spec,
        gradients={n: built.results[g][0] for n, g in joint.gradients.items()},
        buffer_updates=built.buffer_updates,
        updates=built.updates,
        optimizer=optimizer,
        has_loss=step.loss is not None,
        tied=weights.tied,
        given={i: leaf for i, leaf in enumerate(leaves[: len(inputs)]) if not isinstance(leaf, Tensor)},
        input_gradients={
            position: built.results[joint.input_gradients[i]][0] if i in joint.input_gradients else None
            for i, position in enumerate(positions)
            if step.loss is None and leaves[position].requires_grad
        },
    )


def _with_assigned(joint: Joint, names: Sequence[str]) -> Joint:
    """The last results are the new values of these buffers."""
    if not names:
        return joint
    last = dict(zip(names, joint.outputs[-len(names) :], strict=True))
    return replace(joint, outputs=joint.outputs[: -len(names)], buffers={**joint.buffers, **last})


def _placeholder(role: Role, positions: Sequence[int]) -> str:
    match role.kind:
        case "parameter":
            return "p_" + role.name.replace(".", "_")
        case "buffer":
            return "b_" + role.name.replace(".", "_")
        case "input":
            return f"input_{positions[role.index]}"
    return f"tangent_{role.index}"
