"""Turn a plan into actions: what each device and each copy lane does, in order, and for whom it waits.

A device has two agents that work in order: the one that computes, and the lane that receives. An
action is one op or one copy. It starts when the action before it on its agent and the actions that
it waits for have ended. Waits that follow from earlier ones are left out, by vector clocks: an agent
knows how far every other agent was when the actions that it has waited for ended.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from baechi.errors import BaechiError
from baechi.ir.graph import Graph
from baechi.ir.op import Op
from baechi.ir.plan import Plan, TransferKey

__all__ = ["SOURCES", "WRITES", "Action", "Agent", "Schedule", "alias_root", "schedule"]

SOURCES = frozenset({"parameter", "buffer", "input", "constant", "tangent"})
"""Kinds of ops whose values are there before the step begins."""

WRITES = frozenset({"update", "assign"})

_Key = str | TransferKey


@dataclass(frozen=True, slots=True, order=True)
class Agent:
    """Something that works in order: a device's compute, or its receive lane."""

    device: str
    work: Literal["compute", "lane"] = "compute"


@dataclass(frozen=True, slots=True)
class Action:
    """One op, or one copy, with the indices of the actions that it waits for."""

    agent: Agent
    op: str = ""
    transfer: TransferKey | None = None
    waits: tuple[int, ...] = ()

    def __str__(self) -> str:
        what = f"op '{self.op}'" if self.transfer is None else f"the copy of '{self.transfer[0]}'"
        return f"{what} on device '{self.agent.device}'"


@dataclass(frozen=True, eq=False)
class Schedule:
    """All actions of a step, or of one part of it.

    Args:
        actions: in an order in which one thread may issue them.
        present: by device, the tensors that it needs from before the start.
        results: the tensors that the caller gets, from the device where they are made.
        keep: by device, the tensors that a later part needs.
    """

    actions: tuple[Action, ...]
    present: Mapping[str, tuple[str, ...]]
    results: tuple[str, ...] = ()
    keep: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def agents(self) -> tuple[Agent, ...]:
        """The agents that have something to do, compute before lanes."""
        return tuple(sorted({a.agent for a in self.actions}, key=lambda a: (a.work, a.device)))

    @cached_property
    def awaited(self) -> dict[int, tuple[Agent, ...]]:
        """By action, the agents that wait for it."""
        agents: dict[int, list[Agent]] = {}
        for action in self.actions:
            for i in action.waits:
                agents.setdefault(i, []).append(action.agent)
        return {i: tuple(who) for i, who in agents.items()}


def alias_root(graph: Graph, tensor: str) -> str:
    """The tensor whose storage `tensor` shares in the end: itself when it has its own."""
    while (base := graph.tensor[tensor].alias_of) is not None:
        tensor = base
    return tensor


def schedule(
    graph: Graph,
    plan: Plan,
    *,
    ops: Iterable[str] | None = None,
    before: Iterable[str] = (),
    results: Sequence[str] = (),
    inline_bytes: int = 0,
) -> Schedule:
    """Order the ops and copies of a step, or of one part of it.

    Args:
        ops: the ops to run; all by default.
        before: the ops that an earlier part has run; their values are where it left them.
        results: names of the tensors that the caller wants.
        inline_bytes: a tensor up to this size is copied at once by the device that made it,
            because handing it to a lane costs more than the copy.

    Raises:
        BaechiError: B603 when the plan is for another graph or leaves an op out, B604 when a read
            has no transfer, B605 when the orders contradict each other.
    """
    if plan.graph != graph.digest:
        raise BaechiError("B603", f"the plan is for another graph than '{graph.name}'", help="place this graph anew")
    wanted = graph.op if ops is None else frozenset(ops)
    run = frozenset(o.name for o in graph.ops if o.name in wanted and o.kind not in SOURCES)
    _check_orders(plan, run)
    part = _Part(graph, plan, run, frozenset(before))
    agent, needs = part.actions(inline_bytes)
    return Schedule(_waits(_issue(agent, needs), agent, needs), part.present(results), tuple(results))


def _check_orders(plan: Plan, run: frozenset[str]) -> None:
    seen: set[str] = set()
    for device, names in plan.order.items():
        for name in names:
            if name in run and (name in seen or plan.device.get(name) != device):
                raise BaechiError("B603", f"the plan orders op '{name}' twice or on a device that it is not on")
            seen.add(name)
    for name in run:
        if name not in seen:
            raise BaechiError("B603", f"the plan does not order op '{name}'")


class _Part:
    """The ops of one part with what they read from where."""

    def __init__(self, graph: Graph, plan: Plan, run: frozenset[str], before: frozenset[str]) -> None:
        self.graph, self.plan, self.run = graph, plan, run
        self.arrivals: dict[tuple[str, str], TransferKey] = {}
        self.arrived: set[tuple[str, str]] = set()
        for tensor, source, destination in plan.transfers:
            if tensor not in graph.tensor or source != plan.device.get(graph.producer[tensor].name):
                raise BaechiError("B604", f"the plan sends '{tensor}' from '{source}', which does not make it")
            readers = {o.name for o in graph.readers[tensor] if plan.device[o.name] == destination}
            if readers & before:
                self.arrived.add((tensor, destination))
            elif readers & run:
                self.arrivals[tensor, destination] = (tensor, source, destination)
        self.views: dict[str, list[str]] = {}
        for tensor in graph.tensor:
            self.views.setdefault(alias_root(graph, tensor), []).append(tensor)

    def actions(self, inline_bytes: int) -> tuple[dict[_Key, Agent], dict[_Key, list[_Key]]]:
        """The agent of each op and copy, and what must end before it; an agent's own come in its order."""
        agent: dict[_Key, Agent] = {}
        needs: dict[_Key, list[_Key]] = {}
        inline: dict[str, list[TransferKey]] = {}
        for key in self.arrivals.values():
            maker = self.graph.producer[key[0]].name
            if maker not in self.run:
                agent[key], needs[key] = Agent(key[2], "lane"), []
            elif self.graph.tensor[key[0]].nbytes > inline_bytes:
                agent[key], needs[key] = Agent(key[2], "lane"), [maker]
            else:
                inline.setdefault(maker, []).append(key)
        for device, names in self.plan.order.items():
            for name in names:
                if name in self.run:
                    agent[name], needs[name] = Agent(device), self._needs(self.graph.op[name])
                    for key in inline.get(name, ()):
                        agent[key], needs[key] = Agent(device), [name]
        return agent, needs

    def _needs(self, op: Op) -> list[_Key]:
        device = self.plan.device[op.name]
        needs: list[_Key] = [name for name in op.after if name in self.run]
        for tensor in op.inputs:
            maker = self.graph.producer[tensor].name
            if (key := self.arrivals.get((tensor, device))) is not None:
                needs.append(key)
            elif (tensor, device) in self.arrived:
                continue
            elif self.plan.device[maker] != device:
                what = f"op '{op.name}' on '{device}' reads '{tensor}', which no transfer brings there"
                raise BaechiError("B604", what)
            elif maker in self.run:
                needs.append(maker)
        if op.kind in WRITES:
            needs += self._readers_of_target(op)
        return needs

    def _readers_of_target(self, op: Op) -> list[_Key]:
        """Who reads what `op` overwrites, through views too: an in-place write comes last."""
        targets = [t for t in op.inputs if self.graph.producer[t].kind in ("parameter", "buffer")]
        views = [view for target in targets for view in self.views[target]]
        return [r.name for view in views for r in self.graph.readers[view] if r is not op and r.name in self.run]

    def present(self, results: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """By device, the tensors that are there before this part starts and that it needs."""
        present: dict[str, dict[str, None]] = {device: {} for device in self.plan.order}
        for name in (o.name for o in self.graph.ops if o.name in self.run):
            device = self.plan.device[name]
            for tensor in self.graph.op[name].inputs:
                if (tensor, device) not in self.arrivals and not self._made_here(tensor, device):
                    present[device][tensor] = None
        for tensor in (*(t for t, _ in self.arrivals), *results):
            device = self.plan.device[self.graph.producer[tensor].name]
            if not self._made_here(tensor, device):
                present.setdefault(device, {})[tensor] = None
        return {device: tuple(names) for device, names in present.items()}

    def _made_here(self, tensor: str, device: str) -> bool:
        maker = self.graph.producer[tensor].name
        return maker in self.run and self.plan.device[maker] == device


def _issue(agent: Mapping[_Key, Agent], needs: Mapping[_Key, list[_Key]]) -> list[_Key]:
    """A topological order that advances all devices evenly, copies as early as they can be."""
    place, size, after = _agent_orders(agent)
    waiting = {key: len(set(need)) + (key in after) for key, need in needs.items()}
    releases: dict[_Key, list[_Key]] = {}
    for key, need in needs.items():
        for other in set(need):
            releases.setdefault(other, []).append(key)
    for key, other in after.items():
        releases.setdefault(other, []).append(key)
    index = {key: i for i, key in enumerate(agent)}

    def rank(key: _Key) -> tuple[float, int, _Key]:
        return (place[key] / size[agent[key]] if isinstance(key, str) else -1.0, index[key], key)

    ready = [rank(key) for key, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    order: list[_Key] = []
    while ready:
        key = heapq.heappop(ready)[2]
        order.append(key)
        for other in releases.get(key, ()):
            waiting[other] -= 1
            if waiting[other] == 0:
                heapq.heappush(ready, rank(other))
    if len(order) < len(agent):
        stuck = next(key for key in agent if waiting[key] > 0)
        what = f"op '{stuck}'" if isinstance(stuck, str) else f"the transfer of '{stuck[0]}' to '{stuck[2]}'"
        raise BaechiError("B605", f"the orders of the plan contradict each other: {what} can never start")
    return order


def _agent_orders(agent: Mapping[_Key, Agent]) -> tuple[dict[_Key, int], dict[Agent, int], dict[_Key, _Key]]:
    """Each action's place on its agent, each agent's number of actions, and each action's predecessor."""
    place: dict[_Key, int] = {}
    size: dict[Agent, int] = {}
    last: dict[Agent, _Key] = {}
    after: dict[_Key, _Key] = {}
    for key, who in agent.items():
        place[key] = size.get(who, 0)
        size[who] = place[key] + 1
        if who in last:
            after[key] = last[who]
        last[who] = key
    return place, size, after


def _waits(order: Sequence[_Key], agent: Mapping[_Key, Agent], needs: Mapping[_Key, list[_Key]]) -> tuple[Action, ...]:
    """The actions in issue order, each with the waits that its agent's knowledge does not imply."""
    index = {key: i for i, key in enumerate(order)}
    number = {who: i for i, who in enumerate(dict.fromkeys(agent.values()))}
    known = {who: [-1] * len(number) for who in number}
    clock: list[tuple[int, ...]] = []
    actions = []
    for i, key in enumerate(order):
        who = agent[key]
        mine = known[who]
        waits = []
        for j in sorted({index[other] for other in needs[key]}, reverse=True):
            other = agent[order[j]]
            if other != who and mine[number[other]] < j:
                waits.append(j)
                mine[:] = map(max, mine, clock[j])
        mine[number[who]] = i
        clock.append(tuple(mine))
        op, transfer = (key, None) if isinstance(key, str) else ("", key)
        actions.append(Action(who, op, transfer, tuple(waits)))
    return tuple(actions)
