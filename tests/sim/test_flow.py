"""Flow control: whatever the times are, no device passes its predicted peak, and none waits for ever."""

import random
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baechi.api import place_graph, timeline_of
from baechi.errors import Infeasible
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.ir.plan import Plan, TransferKey
from baechi.models.graphs import dag
from baechi.sim.flow import Flow, control

PLACERS = ("m-etf", "m-sct", "m-topo", "round-robin")
LINKS = (Link(), Link(0.25, 1.0))
FAST = Link(1e-6, 1e9)
CONTENTIONS = ("sequential", "duplex", "parallel")
Step = tuple[str, str | TransferKey]


class Replay:
    """One step with any times: at each moment any device or transfer that can go on may be the one that does.

    A device does, in turn, what its flow control says and its ops; a transfer leaves when it is
    received at one end and sent at the other, where those before it to that device have been sent.
    """

    def __init__(
        self, graph: Graph, plan: Plan, transfers: list[TransferKey], flows: dict[str, Flow], choose: random.Random
    ) -> None:
        self.graph, self.plan, self.transfers, self.choose = graph, plan, transfers, choose
        self.scripts = {d: self.script(d, flow) for d, flow in flows.items()}
        self.posted: set[TransferKey] = set()
        self.left: set[TransferKey] = set()
        self.drained: set[TransferKey] = set()
        self.ended: set[str] = set()
        self.held = {d: sum(graph.op[o].persistent_bytes for o in names) for d, names in plan.order.items()}
        self.most = dict(self.held)
        self.holders = self.holders_of()
        self.held_by: dict[object, list[tuple[str, str]]] = {}
        for storage, holders in self.holders.items():
            for holder in holders:
                self.held_by.setdefault(holder, []).append(storage)

    def script(self, device: str, flow: Flow) -> list[Step]:
        steps: list[Step] = []
        for p, name in enumerate((*self.plan.order[device], "")):
            steps += [(event.kind, event.transfer) for event in flow.events.get(p, ())]
            steps += [("begin", name), ("end", name)] if name else []
        return list(reversed(steps))

    def storage(self, tensor: str, device: str) -> tuple[str, str]:
        """A view made here is in the storage of what it is a view of here."""
        maker = self.graph.producer[tensor]
        if self.plan.device[maker.name] == device and self.graph.tensor[tensor].alias_of is not None:
            base = next((t for t in maker.inputs if self.root(t) == self.root(tensor)), None)
            if base is not None:
                return self.storage(base, device)
        return tensor, device

    def root(self, tensor: str) -> str:
        base = self.graph.tensor[tensor].alias_of
        return tensor if base is None else self.root(base)

    def holders_of(self) -> dict[tuple[str, str], set[object]]:
        """By storage, the ops and transfers that must end before it goes; None stands for never."""
        found: dict[tuple[str, str], set[object]] = {}
        for op in self.graph.ops:
            here = self.plan.device[op.name]
            for name in op.inputs:
                found.setdefault(self.storage(name, here), set()).add(op.name)
            for t in op.outputs:
                ends = found.setdefault(self.storage(t.name, here), set())
                ends |= {op.name, *([None] if t.keep else [])}
                if not (t.scattered and t.nbytes):
                    ends |= {key for key in self.transfers if key[0] == t.name}
        return found

    def nbytes(self, storage: tuple[str, str]) -> int:
        tensor = self.graph.tensor[storage[0]]
        is_copy = self.plan.device[self.graph.producer[tensor.name].name] != storage[1]
        return tensor.nbytes if is_copy else max(0, tensor.nbytes - tensor.held)

    def packed(self, key: TransferKey) -> int:
        """What is sent in place of a scattered tensor takes memory until it has left."""
        tensor = self.graph.tensor[key[0]]
        return tensor.nbytes if tensor.scattered else 0

    def take(self, device: str, nbytes: int) -> None:
        self.held[device] += nbytes
        self.most[device] = max(self.most[device], self.held[device])

    def let_go(self, holder: object) -> None:
        for storage in self.held_by.get(holder, ()):
            self.holders[storage].discard(holder)
            if not self.holders[storage]:
                self.held[storage[1]] -= self.nbytes(storage)

    def can(self, device: str) -> bool:
        if not self.scripts[device]:
            return False
        verb, what = self.scripts[device][-1]
        if verb == "release":
            return what in self.left
        if verb == "begin":
            inputs = self.graph.op[str(what)].inputs
            sources = {t: self.plan.device[self.graph.producer[t].name] for t in inputs}
            return all(source == device or (t, source, device) in self.left for t, source in sources.items())
        return True

    def act(self, device: str) -> None:
        verb, what = self.scripts[device].pop()
        if isinstance(what, tuple):
            if verb == "receive":
                assert what not in self.posted, "received twice"
                self.posted.add(what)
                self.take(device, self.graph.tensor[what[0]].nbytes)
            elif what not in self.drained:
                self.drained.add(what)
                self.let_go(what)
                self.held[device] -= self.packed(what)
            return
        op = self.graph.op[what]
        if verb == "begin":
            own = {self.storage(t.name, device) for t in op.outputs if self.storage(t.name, device)[0] == t.name}
            sent = [self.packed(key) for key in self.transfers if self.graph.producer[key[0]] is op]
            self.take(device, op.temp_bytes + sum(map(self.nbytes, own)) + sum(sent))
        else:
            self.ended.add(what)
            self.held[device] -= op.temp_bytes
            self.let_go(what)

    def may_leave(self) -> list[TransferKey]:
        open_pairs: set[tuple[str, str]] = set()
        found = []
        for key in self.transfers:
            if self.graph.producer[key[0]].name not in self.ended:
                open_pairs.add(key[1:])
            elif key[1:] not in open_pairs and key in self.posted and key not in self.left:
                found.append(key)
        return found

    def play(self) -> None:
        eagerness = {d: self.choose.choice([0.05, 1.0, 20.0]) for d in self.scripts}
        network = self.choose.choice([0.05, 1.0, 20.0])
        while any(self.scripts.values()):
            who: list[str | TransferKey] = [d for d in self.scripts if self.can(d)]
            weights = [eagerness[str(d)] for d in who]
            ways = self.may_leave()
            who += ways
            weights += [network] * len(ways)
            assert who, f"all wait: { {d: s[-1] for d, s in self.scripts.items() if s} }"
            chosen = self.choose.choices(who, weights)[0]
            if isinstance(chosen, str):
                self.act(chosen)
            else:
                self.left.add(chosen)
        assert self.posted == self.left == set(self.transfers)


def check(graph: Graph, plan: Plan, seed: int, replays: int = 4) -> None:
    timeline = timeline_of(graph, plan)
    flows = control(graph, plan, timeline)
    if all(s.end > s.start for s in timeline.transfers):  # what takes no time has no order in its instant
        assert all(flow.peak_bytes <= timeline.peak_bytes[device] for device, flow in flows.items())
    transfers = [(s.tensor, s.source, s.destination) for s in timeline.transfers]
    check_order(graph, plan, transfers, flows)
    for i in range(replays):
        replay = Replay(graph, plan, transfers, flows, random.Random(1000 * seed + i))
        replay.play()
        assert all(replay.most[d] <= flow.peak_bytes for d, flow in flows.items())


def check_order(graph: Graph, plan: Plan, transfers: list[TransferKey], flows: dict[str, Flow]) -> None:
    """Each transfer is received once, in the order of the simulation from each source, before it is read."""
    for device, flow in flows.items():
        position = {name: p for p, name in enumerate(plan.order[device])}
        received = [(e.transfer, p) for p in sorted(flow.events) for e in flow.events[p] if e.kind == "receive"]
        assert len(dict(received)) == len(received)
        assert set(dict(received)) == {key for key in transfers if key[2] == device}
        for key, p in received:
            assert all(p <= position[op.name] for op in graph.readers[key[0]] if op.name in position)
        for source in flows:
            mine = [key for key, _ in received if key[1] == source]
            assert mine == [key for key in transfers if key[1:] == (source, device)]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Small graphs with views, zero-cost ops, kept results, temporaries and partly held outputs."""
    ops: list[Op] = []
    known: list[str] = []
    for i in range(draw(st.integers(1, 12))):
        inputs = tuple(draw(st.lists(st.sampled_from(known), max_size=3, unique=True))) if known else ()
        outputs = []
        for k in range(draw(st.integers(0, 2))):
            alias = draw(st.sampled_from(inputs)) if inputs and draw(st.booleans()) else None
            nbytes = draw(st.integers(0, 4))
            held = draw(st.integers(0, nbytes))
            keep, scattered = draw(st.integers(0, 3)) == 0, draw(st.booleans())
            outputs.append(Tensor(f"t{i}.{k}", nbytes, alias_of=alias, held=held, keep=keep, scattered=scattered))
        temp, persistent, seconds = draw(st.integers(0, 3)), draw(st.integers(0, 3)), float(draw(st.integers(0, 2)))
        ops.append(
            Op(f"o{i}", "op", inputs, tuple(outputs), temp_bytes=temp, persistent_bytes=persistent, seconds=seconds)
        )
        known += [t.name for t in outputs]
    return Graph(tuple(ops))


def cluster_of(contention: str, link: Link, cap: int = 10**12) -> Cluster:
    return Cluster(tuple(Device(f"d:{i}", cap) for i in range(3)), link, contention=contention)  # type: ignore[arg-type]


@settings(max_examples=250)
@given(graphs(), st.sampled_from(CONTENTIONS), st.sampled_from(LINKS), st.integers(0, 2**16))
def test_any_placement_and_order(reference: ModuleType, graph: Graph, contention: str, link: Link, seed: int) -> None:
    check(graph, reference.random_plan(graph, cluster_of(contention, link), seed), seed)


@pytest.mark.parametrize("contention", CONTENTIONS)
@pytest.mark.parametrize("placer", PLACERS)
@pytest.mark.parametrize("kind", ["layered", "branchy"])
def test_placers_under_tight_caps(kind: str, placer: str, contention: str) -> None:
    found = 0
    for seed in range(3):
        graph = dag(kind, 40, seed)
        loose = place_graph(graph, cluster_of(contention, FAST), placer, seed=seed)
        most = max(loose.predicted.peak_bytes.values())
        for share in (1.0, 0.8, 0.65):
            try:
                plan = place_graph(graph, cluster_of(contention, FAST, int(most * share)), placer, seed=seed)
            except Infeasible:
                break
            found += 1
            check(graph, plan, seed, replays=2)
    assert found >= 3
