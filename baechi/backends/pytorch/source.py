"""Write a schedule out as Python source: one function for each agent, or one for all of them.

The source is straight-line: values are local variables, deleted right after their last reader. What
it calls is bound in its namespace, so an op costs one call into ATen. Names in capitals are the
runner's, all others are those of the fx graph.
"""

import bisect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from baechi.backends.pytorch.calls import CallWriter
from baechi.backends.pytorch.rewrite import SOURCES, Action, Agent, Schedule, alias_root
from baechi.frontends.pytorch.program import TorchProgram
from baechi.ir.op import Op

__all__ = ["Code", "Job", "find_line", "write_agent", "write_serial"]


@dataclass(frozen=True, eq=False)
class Job:
    """What there is to write.

    Args:
        devices: the torch device by device name.
        probe: whether to call ``ENTER(action)`` and ``LEAVE(action, entered, outputs)`` around
            each action.
        streams: whether a serial function calls ``USE(agent)``, ``WAIT(action)`` and ``MARK(action)``.
    """

    program: TorchProgram
    schedule: Schedule
    devices: Mapping[str, torch.device]
    probe: bool = False
    streams: bool = False

    @cached_property
    def results(self) -> frozenset[str]:
        """The tensors that the caller gets."""
        return frozenset(self.schedule.results)

    @cached_property
    def copies(self) -> dict[str, tuple[int, ...]]:
        """The actions that copy each tensor."""
        copies: dict[str, tuple[int, ...]] = {}
        for i, action in enumerate(self.schedule.actions):
            if action.transfer is not None:
                copies[action.transfer[0]] = (*copies.get(action.transfer[0], ()), i)
        return copies

    @cached_property
    def borrowed(self) -> frozenset[str]:
        """Results that share storage with parameters, buffers or inputs: the caller gets copies."""
        graph = self.program.graph
        return frozenset(t for t in self.schedule.results if graph.producer[alias_root(graph, t)].kind in SOURCES)

    @cached_property
    def given(self) -> dict[str, str]:
        """The device of each result that is present before anything runs."""
        made = {t.name for a in self.schedule.actions if a.op for t in self.program.graph.op[a.op].outputs}
        found: dict[str, str] = {}
        for device, tensors in self.schedule.present.items():
            found |= {t: device for t in tensors if t in self.results and t not in made}
        return found

    def given_results(self, values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Copies of them."""
        return {tensor: values[device][tensor].clone() for tensor, device in self.given.items()}


@dataclass(frozen=True, eq=False)
class Code:
    """A written function.

    Args:
        call: takes the present values by device (it takes them out) and the mappings that it
            fills: kept values by device, and results.
        lines: the first line of each of its actions.
        actions: their indices in the schedule.
    """

    call: Callable[[Mapping[str, dict[str, Any]], Mapping[str, dict[str, Any]], dict[str, Any]], None]
    text: str
    filename: str
    lines: tuple[int, ...]
    actions: tuple[int, ...]

    def action_of(self, error: BaseException) -> int | None:
        """The action in which `error` was raised, or None when it came from elsewhere."""
        i = find_line(error, self.filename, self.lines)
        return None if i is None else self.actions[i]


def find_line(error: BaseException, filename: str, lines: Sequence[int]) -> int | None:
    """Behind which of some lines of written source `error` was raised; None when it came from elsewhere."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == filename:
            i = bisect.bisect_right(lines, trace.tb_lineno) - 1
            return i if i >= 0 else None
        trace = trace.tb_next
    return None


def write_agent(job: Job, agent: Agent, names: Mapping[str, Any]) -> Code:
    """Write what one agent does in a thread of its own.

    Args:
        names: what the source calls: ``BOX``, where copies are handed over, ``STOP`` and ``HALT``
            to leave a step that failed elsewhere, ``UPDATES``, and for each wait ``A<i>_<agent>``
            and ``R<i>_<agent>`` to acquire and release it.
    """
    return _Writer(job, {agent}, names, serial=False).write(f"{agent.work} of {agent.device}")


def write_serial(job: Job, names: Mapping[str, Any]) -> Code:
    """Write all that all agents do, for one thread.

    Args:
        names: what the source calls: ``COPY(tensor, source, destination)``, ``UPDATES`` and, with
            streams, ``USE``, ``WAIT`` and ``MARK``.
    """
    return _Writer(job, set(job.schedule.agents), names, serial=True).write("all devices")


class _Writer(CallWriter):
    def __init__(self, job: Job, agents: Collection[Agent], names: Mapping[str, Any], *, serial: bool) -> None:
        suffix = {d: f"_d{i}" if serial else "" for i, d in enumerate(job.schedule.present)}
        super().__init__(job.program, job.devices, names, suffix)
        self.job, self.serial = job, serial
        self.mine = [(i, a) for i, a in enumerate(job.schedule.actions) if a.agent in agents]
        self.computes = dict.fromkeys(a.device for a in sorted(agents) if a.work == "compute")
        if serial:
            self.computes = dict.fromkeys(job.schedule.present)
        self.number = {agent: i for i, agent in enumerate(job.schedule.agents)}
        self.held = {self.var(t, d) for d in self.computes for t in job.schedule.keep.get(d, ())}
        self.in_use: Agent | None = None

    def write(self, title: str) -> Code:
        lines, last = [], self.last_uses()
        self.text.append("def run(VALUES, KEPT, RESULTS):")
        self.begin(last)
        for i, action in self.mine:
            lines.append(len(self.text) + 1)
            made = self.act(i, action)
            dead = [v for v in (*last.get(i, ()), *(v for v in made if v not in self.used)) if v not in self.held]
            if dead:
                self.emit(f"del {', '.join(dict.fromkeys(dead))}")
        for device in self.computes:
            for tensor in self.job.schedule.keep.get(device, ()):
                self.emit(f"KEPT[{device!r}][{tensor!r}] = {self.var(tensor, device)}")
        self.emit("return None")
        text = "\n".join(self.text)
        filename = f"<baechi: {title}>"
        exec(compile(text, filename, "exec"), self.names)  # noqa: S102 - our own source
        return Code(self.names["run"], text, filename, tuple(lines), tuple(i for i, _ in self.mine))

    def uses(self, action: Action) -> list[str]:
        """The variables that an action reads."""
        device = action.agent.device
        if action.transfer is None:
            return [self.var(t, device) for t in self.graph.op[action.op].inputs]
        if self.serial or action.agent.work == "compute":
            return [self.var(action.transfer[0], action.transfer[1])]
        return []

    def last_uses(self) -> dict[int, list[str]]:
        """The variables to delete after each action; fills `used`."""
        last: dict[str, int] = {}
        for i, action in self.mine:
            last |= dict.fromkeys(self.uses(action), i)
        self.used = set(last)
        ends: dict[int, list[str]] = {}
        for name, i in last.items():
            ends.setdefault(i, []).append(name)
        return ends

    def begin(self, last: Mapping[int, list[str]]) -> None:
        """Take what is present."""
        for device in self.computes:
            for tensor in self.job.schedule.present[device]:
                name = self.var(tensor, device)
                self.emit(f"{name} = VALUES[{device!r}].pop({tensor!r})")
                self.defined.add(name)
                if name not in self.used and name not in self.held:
                    self.emit(f"del {name}")

    def deliver(self, tensor: str, name: str) -> None:
        value = f"{name}.clone()" if tensor in self.job.borrowed else name
        self.emit(f"RESULTS[{tensor!r}] = {value}")

    def act(self, i: int, action: Action) -> list[str]:
        """Write one action; returns the variables that it defines."""
        if self.serial and self.job.streams and self.in_use != action.agent:
            self.emit(f"USE({self.number[action.agent]})")
        self.in_use = None if action.transfer is not None else action.agent  # a copy leaves its own streams in use
        for j in action.waits:
            if not self.serial:
                self.emit(f"A{j}_{self.number[action.agent]}()")
                self.emit("if STOP: HALT()")
            elif self.job.streams:
                self.emit(f"WAIT({j})")
        op = self.graph.op[action.op] if action.op else None
        if op is not None:
            self.take(op, action.agent.device)
        if self.job.probe:
            self.emit(f"T = ENTER({i})")
        made = self.copy(i, action) if op is None else self.op(op, action.agent.device)
        if self.job.probe:
            outs = made if op is not None or self.serial else [f"BOX[{i}]"]
            self.emit(f"LEAVE({i}, T, ({''.join(f'{v}, ' for v in outs)}))")
        if op is not None:
            self.hand_over(op, action.agent.device)
        for agent in self.job.schedule.awaited.get(i, ()):
            if not self.serial:
                self.emit(f"R{i}_{self.number[agent]}()")
        if self.serial and self.job.streams and i in self.job.schedule.awaited:
            self.emit(f"MARK({i})")
        return made

    def take(self, op: Op, device: str) -> None:
        """Take what has been copied here for the first reader."""
        for tensor in op.inputs:
            name = self.var(tensor, device)
            if self.serial or name in self.defined:
                continue
            for i in self.job.copies.get(tensor, ()):
                transfer = self.job.schedule.actions[i].transfer
                if transfer is not None and transfer[2] == device:
                    self.emit(f"{name} = BOX[{i}]; BOX[{i}] = None")
                    self.defined.add(name)

    def hand_over(self, op: Op, device: str) -> None:
        """Give what lanes and the caller want."""
        for tensor in (t.name for t in op.outputs):
            for i in self.job.copies.get(tensor, ()):
                if not self.serial and self.job.schedule.actions[i].agent.work == "lane":
                    self.emit(f"BOX[{i}] = {self.var(tensor, device)}")
            if tensor in self.job.results:
                self.deliver(tensor, self.var(tensor, device))

    def copy(self, i: int, action: Action) -> list[str]:
        assert action.transfer is not None
        tensor, source, destination = action.transfer
        if self.serial:
            made = self.var(tensor, destination)
            self.emit(f"{made} = COPY({self.var(tensor, source)}, {source!r}, {destination!r})")
            return [made]
        value = self.var(tensor, source) if action.agent.work == "compute" else f"BOX[{i}]"
        self.emit(f"BOX[{i}] = CLONE({value})")
        return []
