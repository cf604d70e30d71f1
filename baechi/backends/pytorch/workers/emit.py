"""Cut a placed step into parts, one for each worker, each with the source of what it does.

A worker does everything in one thread: it computes, begins to receive where flow control lets it,
waits for a tensor where it reads it, and sends each tensor as soon as it exists. Sending and
receiving go on beside the computing, in the threads of the communication library.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from baechi.backends.pytorch.calls import CallWriter
from baechi.backends.pytorch.rewrite import SOURCES, WRITES, alias_root, schedule
from baechi.backends.pytorch.workers.part import Layout, Part, Wire
from baechi.backends.pytorch.workers.whole import Step
from baechi.errors import BaechiError
from baechi.frontends.pytorch.program import TorchProgram
from baechi.ir.op import Op
from baechi.ir.plan import Plan, TransferKey
from baechi.ir.timeline import Timeline
from baechi.sim.flow import control

__all__ = ["make_parts"]


def make_parts(program: TorchProgram, plan: Plan, timeline: Timeline, *, traced: bool = False) -> tuple[Part, ...]:
    """The part of each worker, by rank.

    Args:
        program: the step, with a loss.
        plan: for its graph.
        timeline: what the simulator expects of the plan.
        traced: whether parts also have a source that notes when each op begins and ends.

    Raises:
        BaechiError: B603 to B605 on a plan that is not for this program, B606 on a step without a loss.
    """
    if not program.has_loss:
        raise BaechiError(
            "B606", "the step has no loss, and workers run whole steps", help="capture it with a loss and an optimiser"
        )
    schedule(program.graph, plan)
    step = Step(program, plan, timeline, control(program.graph, plan, timeline))
    writers = [_Writer(step, device) for device in step.ranks]
    parts = tuple(writer.part() for writer in writers)
    if traced:
        parts = tuple(replace(part, traced=_Writer(step, part.device, stamps=True).source()) for part in parts)
    _check_end([writer.script for writer in writers])
    return parts


def _check_end(scripts: Sequence[Sequence[tuple[str, int]]]) -> None:
    """Refuse parts of which some would wait for each other for ever: play what they say to each other."""
    said: set[tuple[str, int]] = set()
    waits = {"TAKE": ("POST", "SEND"), "DRAIN": ("POST", "SEND"), "AWAIT_TURN": ("PASS_TURN",)}
    at = [0] * len(scripts)
    going = True
    while going:
        going = False
        for rank, script in enumerate(scripts):
            while at[rank] < len(script):
                verb, number = script[at[rank]]
                if not all((other, number) in said for other in waits.get(verb, ())):
                    break
                said.add((verb, number))
                at[rank] += 1
                going = True
    if any(at[rank] < len(script) for rank, script in enumerate(scripts)):
        raise BaechiError(
            "B605", "the transfers of the plan wait for each other", help="place the model again, with more memory"
        )


class _Writer(CallWriter):
    """Writes the source of one device; with stamps, it says when each op begins and ends, and the next may begin."""

    def __init__(self, step: Step, device: str, *, stamps: bool = False) -> None:
        super().__init__(step.program, {device: step.place(device)}, {}, {device: ""})
        self.step, self.device, self.stamps = step, device, stamps
        self.order = step.plan.order[device]
        self.position = {name: p for p, name in enumerate(self.order)}
        self.arriving = {key[0]: i for key, i in step.number.items() if key[2] == device}
        self.leaving = {key: i for key, i in step.number.items() if key[1] == device}
        self.sends = self._send_positions()
        self.results = tuple(t for t in step.results if step.device_of(t) == device)
        self.used: set[str] = set()
        self.script: list[tuple[str, int]] = []

    def kernel(self, target: Any) -> Any:
        """The op itself: its bare kernel cannot travel to another process."""
        return target

    def say(self, verb: str, number: int, *args: object) -> None:
        """Write a call that has to do with another worker."""
        self.script.append((verb, number))
        self.emit(f"{verb}({', '.join(map(str, (number, *args)))})")

    def source(self) -> str:
        """Write the function alone."""
        self._write()
        return "\n".join(self.text)

    def part(self) -> Part:
        """Write everything."""
        program, plan, device = self.program, self.step.plan, self.device
        lines = self._write()
        description = plan.cluster.device[device]
        sources = [program.graph.op[name] for name in self.order if program.graph.op[name].kind in SOURCES]
        here = {op.name for op in sources}
        rank, where = self.step.ranks, plan.device
        owned = {**program.parameters, **program.buffers}
        return Part(
            device=device,
            rank=rank[device],
            ranks=rank,
            place=self.devices[device],
            threads=description.threads,
            cores=self.step.cores(device),
            cap_bytes=description.cap,
            text="\n".join(self.text),
            names=self.names,
            filename=f"<baechi: {device}>",
            lines=tuple(lines.values()),
            ops=tuple(lines),
            pairs=self.step.pairs,
            wires={i: self._wire(key) for key, i in self.step.number.items() if device in key[1:]},
            sources={op.name: Layout.of(program.values[op.outputs[0].name].meta["val"]) for op in sources},
            parameters={n: op for n, op in program.parameters.items() if op in here},
            buffers={n: op for n, op in program.buffers.items() if op in here},
            owners={n: rank[where[op]] for n, op in owned.items()},
            constants={op: value for op, value in program.constants.items() if op in here},
            inputs={i: op for i, op in enumerate(program.inputs) if op in here},
            input_count=len(program.inputs),
            given=program.given,
            tangents=tuple(op for op in program.tangents if op in here),
            loss=next(t for t in program.outputs if t is not None),
            results=self.results,
            gradients={n: t for n, t in program.gradients.items() if t in self.results},
            updates={n: op for n, op in program.updates.items() if where[op] == device},
            optimizer=program.optimizer,
            tied=program.tied,
            draws=(rank[where[self.step.random[0]]], rank[where[self.step.random[-1]]]) if self.step.random else None,
            predicted_bytes=max(plan.predicted.peak_bytes.get(device, 0), self.step.flows[device].peak_bytes),
        )

    def _wire(self, key: TransferKey) -> Wire:
        peer = key[2] if key[1] == self.device else key[1]
        return Wire(key[0], self.step.ranks[peer], Layout.of(self.program.values[key[0]].meta["val"]))

    def _send_positions(self) -> dict[int, list[tuple[int, str]]]:
        """What to send after which op: a tensor as soon as it exists and those before it to that device have gone."""
        last: dict[str, int] = {}
        sends: dict[int, list[tuple[int, str]]] = {}
        for key, i in self.leaving.items():
            made = self.position[self.graph.producer[key[0]].name]
            last[key[2]] = max(last.get(key[2], 0), made)
            sends.setdefault(last[key[2]], []).append((i, key[0]))
        return sends

    def _write(self) -> dict[str, int]:
        """The lines of the function; returns the first line of each op."""
        last = self._last_uses()
        lines: dict[str, int] = {}
        events = self.step.flows[self.device].events
        self.text.append("def run(VALUES, RESULTS):")
        for p, name in enumerate(self.order):
            lines[name] = len(self.text) + 1
            self._handle(events.get(p, ()))
            made = self._op(self.graph.op[name])
            for i, tensor in self.sends.get(p, ()):
                self.say("SEND", i, self.var(tensor, self.device))
            dead = dict.fromkeys([*last.get(p, ()), *(v for v in made if v not in self.used)])
            if dead:
                self.emit(f"del {', '.join(dead)}")
            self._stamp("NEXT", self.graph.op[name])
        self._handle(events.get(len(self.order), ()))
        self.emit("return None")
        return lines

    def _last_uses(self) -> dict[int, list[str]]:
        """The variables to delete after each op; fills `used`."""
        last: dict[str, int] = {}
        for p, name in enumerate(self.order):
            for tensor in self.graph.op[name].inputs:
                last[self.var(tensor, self.device)] = p
        for p, sends in self.sends.items():
            for _, tensor in sends:
                name = self.var(tensor, self.device)
                last[name] = max(p, last.get(name, 0))
        self.used = set(last)
        ends: dict[int, list[str]] = {}
        for name, p in last.items():
            ends.setdefault(p, []).append(name)
        return ends

    def _handle(self, events: Sequence[Any]) -> None:
        for event in events:
            self.say("POST" if event.kind == "receive" else "DRAIN", self.step.number[event.transfer])

    def _op(self, op: Op) -> list[str]:
        """Write one op with what must come right before and after it; returns the variables that it defines."""
        if op.kind in SOURCES:
            made = [self.var(t.name, self.device) for t in op.outputs]
            self.emit(f"{made[0]} = VALUES[{op.outputs[0].name!r}]")
            self._deliver(op)
            return made
        for tensor in op.inputs:
            name = self.var(tensor, self.device)
            if tensor in self.arriving and name not in self.defined:
                self.script.append(("TAKE", self.arriving[tensor]))
                self.emit(f"{name} = TAKE({self.arriving[tensor]})")
                self.defined.add(name)
        if op.kind in WRITES:
            for i in self._sent_views(op):
                self.say("DRAIN", i)
        turn = self.step.random.index(op.name) if op.name in self.step.random else None
        if turn:
            self._pass_turn("AWAIT_TURN", turn, self.step.random[turn - 1])
        self._stamp("ENTER", op)
        made = self.op(op, self.device)
        self._stamp("LEAVE", op)
        if turn is not None and turn + 1 < len(self.step.random):
            self._pass_turn("PASS_TURN", turn + 1, self.step.random[turn + 1])
        self._deliver(op)
        return made

    def _stamp(self, call: str, op: Op) -> None:
        """Note when an op begins, when it ends, or when its results are under way and what it needed is gone."""
        if self.stamps and op.kind not in SOURCES:
            self.emit(f"{call}()")

    def _pass_turn(self, call: str, turn: int, other: str) -> None:
        """Random ops draw from one stream, which goes from worker to worker."""
        peer = self.step.plan.device[other]
        if peer != self.device:
            self.say(call, turn, self.step.ranks[peer])

    def _sent_views(self, op: Op) -> list[int]:
        """The transfers that may still read what `op` is about to overwrite."""
        roots = {alias_root(self.graph, t) for t in op.inputs}
        targets = {t for t in roots if self.graph.producer[t].kind in ("parameter", "buffer")}
        return [i for key, i in self.leaving.items() if alias_root(self.graph, key[0]) in targets]

    def _deliver(self, op: Op) -> None:
        for tensor in (t.name for t in op.outputs):
            if tensor not in self.results:
                continue
            borrowed = self.graph.producer[alias_root(self.graph, tensor)].kind in SOURCES
            name = self.var(tensor, self.device)
            self.emit(f"RESULTS[{tensor!r}] = {name}{'.clone()' if borrowed else ''}")
