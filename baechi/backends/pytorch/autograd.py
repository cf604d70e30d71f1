"""The placed module inside the user's own training loop: forward and backward as one autograd function."""

import contextlib
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from baechi.backends.pytorch.cuda import Streamed
from baechi.backends.pytorch.executor import inline_bytes, torch_devices
from baechi.backends.pytorch.given import captured, given_input
from baechi.backends.pytorch.kinds import modules_of
from baechi.backends.pytorch.pool import Threads
from baechi.backends.pytorch.rewrite import alias_root
from baechi.backends.pytorch.source import Job
from baechi.backends.pytorch.split import split
from baechi.backends.pytorch.threads import Crew, Threaded
from baechi.errors import BaechiError
from baechi.frontends.pytorch.program import TorchProgram
from baechi.ir.plan import Plan

__all__ = ["PlacedForward", "make_forward"]

Kept = dict[str, dict[str, Any]]


def make_forward(
    program: TorchProgram,
    plan: Plan,
    module: nn.Module,
    *,
    devices: Mapping[str, torch.device] | None = None,
    threads: Threads | None = None,
) -> "PlacedForward":
    """A function of the module's own inputs that computes where the plan says.

    Args:
        program: captured without a loss and without an optimiser.
        plan: for the program's graph.
        module: whose parameters and buffers are read at each call, and whose buffers are written; it
            is not kept alive.
        devices: as for the executor.
        threads: to share with other forwards of the module.

    Raises:
        BaechiError: B603 to B606, as for the executor.
    """
    return PlacedForward(program, plan, module, devices, threads or Threads())


class PlacedForward:
    """Called like the module; `backward` of what it returns runs the placed backward pass.

    Gradients arrive at the user's own parameters, so any optimiser and any loop works. What
    forward saves for backward stays on its devices until backward has run, once. Results and
    gradients come back to where eager code would have them: results to the device of the inputs.
    """

    def __init__(
        self,
        program: TorchProgram,
        plan: Plan,
        module: nn.Module,
        devices: Mapping[str, torch.device] | None,
        threads: Threads,
    ) -> None:
        if program.has_loss or program.updates:
            raise BaechiError(
                "B606", "the step has a loss or an optimiser of its own", help="capture it without, or use the executor"
            )
        self.program, self.plan = program, plan
        self.devices = torch_devices(plan, devices)
        self.parts = split(program, plan, inline_bytes=inline_bytes(self.devices))
        self.differentiable = frozenset(self.parts.tangents.values())
        self._module = weakref.ref(module)
        self._slots = {name: _slot(module, name) for name in (*program.parameters, *program.buffers)}
        self._reached: dict[frozenset[int], frozenset[str]] = {}
        self._threads = threads
        self._crew: Crew | None = None
        self._runners: dict[str, Threaded | Streamed] = {}
        self._constants = {t: v.to(self.devices[plan.device[t]]) for t, v in program.constants.items()}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run forward.

        Raises:
            BaechiError: B601 when an op fails, B608 when an input is not like the captured one.
        """
        module, leaves = self._module(), pytree.tree_leaves((args, kwargs))
        if module is None:
            raise BaechiError("B606", "the placed module is gone", help="keep it alive as long as it is called")
        owners, inputs = modules_of(module), self._inputs(leaves)
        weights = {name: _held(owners[i], key) for name, (i, key) in self._slots.items()}
        if torch.is_grad_enabled():
            parameters = [weights[name] for name in self.program.gradients]
            wanting = [leaves[i] for i in self.program.input_gradients]
            results = _Placed.apply(self, inputs, weights, *parameters, *wanting)  # type: ignore[no-untyped-call]
        else:
            results = self.forward(inputs, weights, None)
        found = iter(results)
        program = self.program
        outputs = [fixed if t is None else next(found) for t, fixed in zip(program.outputs, program.fixed, strict=True)]
        return pytree.tree_unflatten(outputs, program.output_spec)

    def forward(
        self, inputs: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], kept: Kept | None
    ) -> tuple[torch.Tensor, ...]:
        """Run the forward part; `kept` is filled with what backward needs, or None to keep nothing."""
        program, parts = self.program, self.parts
        values: Kept = {device: {} for device in self.plan.order}
        moved = []
        for name, op in (*program.parameters.items(), *program.buffers.items()):
            value = weights[name].clone() if name in parts.renewed else weights[name]
            held = self._put(values, op, value)
            if name in program.buffer_updates and name not in parts.renewed and held.device != value.device:
                moved.append((value, held))
        for op, value in (*inputs.items(), *self._constants.items()):
            self._put(values, op, value)
        if kept is not None:
            for device, tensors in parts.backward.present.items():
                kept[device] = {t: values[device][t] for t in tensors if t in values[device]}
        results = self._run("evaluate" if kept is None else "forward", values, kept)
        for buffer, held in (*moved, *((weights[n], results[t]) for n, t in parts.renewed.items())):
            buffer.copy_(held)
        home = next(iter((*inputs.values(), *weights.values())), torch.empty(0)).device
        return tuple(results[t].to(home) for t in parts.outputs)

    def backward(self, kept: Kept, tangents: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor | None, ...]:
        """Run the backward part on what forward kept.

        Args:
            tangents: the gradients of the outputs; None for an output that has none.

        Returns:
            The gradients of the parameters and of the inputs that want one; None, as in eager code,
            where no output with a gradient depends on it.
        """
        for op, i in self.parts.tangents.items():
            self._put(kept, op, _laid_out(tangents[i], self.program.values[op].meta["val"]))
        results = self._run("backward", kept, None)
        missing = frozenset(i for i in self.differentiable if tangents[i] is None)
        if missing and missing not in self._reached:
            self._reached[missing] = self.parts.reached(missing)
        live = self._reached.get(missing)
        names = [t if live is None or t in live else None for t in self.parts.gradients]
        return _unshared([None if t is None else results[t] for t in names])

    def versions(
        self, inputs: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], results: Sequence[torch.Tensor]
    ) -> list[tuple[torch.Tensor, int]]:
        """What backward needs unchanged and the user can reach, with how often each was changed so far."""
        program, parts = self.program, self.parts
        named = {**program.parameters, **program.buffers}
        found = [weights[n] for n, op in named.items() if op in parts.kept and n not in parts.renewed]
        found += [value for op, value in inputs.items() if op in parts.kept]
        shown = (alias_root(program.graph, t) for t in parts.outputs)
        found += [result for root, result in zip(shown, results, strict=True) if root in parts.kept]
        return [(t, t._version) for t in found if not t.is_inference()]

    def close(self) -> None:
        """End the threads; the next call starts new ones."""
        self._runners.clear()
        self._crew = None
        self._threads.close()

    def _run(self, part: str, values: Kept, kept: Kept | None) -> dict[str, Any]:
        with self._threads.lock, _no_autocast():
            try:
                return self._runner(part).run(values, kept)
            except BaseException:
                self.close()
                raise

    def _runner(self, part: str) -> "Threaded | Streamed":
        is_cuda = any(d.type != "cpu" for d in self.devices.values())
        if not is_cuda:
            size = max(len(self.parts.forward.agents), len(self.parts.backward.agents))
            crew = self._threads.crew(size)
            if crew is not self._crew:
                self._runners.clear()
                self._crew = crew
        if part not in self._runners:
            actions = self.parts.backward if part == "backward" else self.parts.forward
            if part == "evaluate":
                actions = replace(actions, keep={})
            job = Job(self.program, actions, self.devices, streams=is_cuda)
            self._runners[part] = Streamed(job, {}) if is_cuda else Threaded(job, crew, {}, inference=False)
        return self._runners[part]

    def _inputs(self, leaves: Sequence[Any]) -> dict[str, torch.Tensor]:
        program = self.program
        if len(leaves) != len(program.inputs):
            raise BaechiError("B608", f"the module was captured with {len(program.inputs)} inputs, not {len(leaves)}")
        program.check_given(leaves)
        inputs = {}
        for i, (op, value) in enumerate(zip(program.inputs, leaves, strict=True)):
            if op is None:
                continue
            given_input(op, value, captured(program, op))
            if value.requires_grad and i not in program.input_gradients and torch.is_grad_enabled():
                raise BaechiError(
                    "B608",
                    f"input '{op}' wants a gradient, and the captured one did not",
                    help="capture the module with such an input, or detach() it",
                )
            inputs[op] = value
        return inputs

    def _put(self, values: Kept, op: str, value: torch.Tensor) -> torch.Tensor:
        device = self.plan.device[op]
        held = value.detach().to(self.devices[device])
        values[device][op] = held
        return held


class _Placed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, placed: PlacedForward, inputs: Any, weights: Any, *wanting: torch.Tensor) -> Any:
        ctx.set_materialize_grads(False)
        ctx.placed, ctx.kept = placed, {device: {} for device in placed.plan.order}
        results = placed.forward(inputs, weights, ctx.kept)
        ctx.versions = placed.versions(inputs, weights, results)
        ctx.homes = [t.device for t in wanting]
        ctx.mark_non_differentiable(*(r for i, r in enumerate(results) if i not in placed.differentiable))
        return results

    @staticmethod
    def backward(ctx: Any, *tangents: torch.Tensor | None) -> Any:
        _check_backward(ctx)
        kept, ctx.kept, ctx.versions = ctx.kept, None, []
        gradients = ctx.placed.backward(kept, tangents)
        return (None, None, None, *(g if g is None else g.to(h) for g, h in zip(gradients, ctx.homes, strict=True)))


def _check_backward(ctx: Any) -> None:
    if torch.is_grad_enabled():
        raise BaechiError(
            "B609",
            "a gradient of a gradient was asked for, and a placed module does not give its own",
            help="leave create_graph=True out, or run this part within BAECHI_DISABLE=1",
        )
    if ctx.kept is None:
        raise BaechiError(
            "B609",
            "backward ran a second time through a placed module, which has freed what forward saved",
            help="call the module again, or add the losses up before one backward",
        )
    if any(t._version != version for t, version in ctx.versions):
        raise BaechiError(
            "B609",
            "a parameter, an input or a result of a placed module was changed in place before backward needed it",
            help="run backward before optimizer.step(), and change a clone() of a result",
        )


@contextlib.contextmanager
def _no_autocast() -> Iterator[None]:
    """The casts are ops of the plan: nothing may be cast again where the plan runs in the calling thread."""
    with contextlib.ExitStack() as stack:
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def _slot(module: nn.Module, name: str) -> tuple[int, str]:
    """Where a parameter or buffer hangs, so that it is found again after it was exchanged."""
    path, _, key = name.rpartition(".")
    owner = module.get_submodule(path)
    return next(i for i, m in enumerate(modules_of(module)) if m is owner), key


def _held(owner: nn.Module, key: str) -> torch.Tensor:
    found = owner._parameters[key] if key in owner._parameters else owner._buffers[key]
    assert found is not None  # a module that lost one is of another kind
    return found


def _laid_out(tangent: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    """The gradient of an output with the strides that the ops were captured with; zeros for a missing one."""
    if tangent is not None and tangent.stride() == like.stride() and tangent.dtype == like.dtype:
        return tangent
    made = torch.empty_strided(like.size(), like.stride(), dtype=like.dtype)
    return made.zero_() if tangent is None else made.copy_(tangent)


def _unshared(gradients: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor | None, ...]:
    """Gradients of which no two share memory: a loop may scale each in place."""
    seen: dict[int, torch.Tensor] = {}
    storages = (None if g is None else g.untyped_storage().data_ptr() for g in gradients)
    return tuple(
        g.clone() if g is not None and s is not None and seen.setdefault(s, g) is not g else g
        for g, s in zip(gradients, storages, strict=True)
    )
