"""Throughput as a constraint programme: the highest load of a device, as `sim.load.loads` counts it."""

from collections.abc import Callable, Iterator

from baechi.cost.problem import Ints
from baechi.placers._cp_net import Net
from baechi.placers._cp_place import Literal, Placement, negated
from baechi.sim.evaluate import Schedule
from baechi.sim.state import Run

__all__ = ["Load"]


class Load:
    """Ops to devices so that the highest load is least.

    A device is loaded by its ops, by each tensor that it sends (once, at its longest transfer) and by
    each copy that it receives; one that works in host memory by its ops alone.

    Args:
        place: who shares a device.
        low, high: bounds on the objective.
    """

    def __init__(self, place: Placement, low: int, high: int) -> None:
        self.place, self.net, self.model = place, place.net, place.model
        self.end = self.model.new_int_var(low, high, "load")
        terms: list[list[Literal]] = [[] for _ in range(self.net.devices)]
        for d, row in enumerate(terms):
            row.extend(self._work(g, d) for g in range(len(place.on)))
        for t, source, readers in _crossing(self.net, place.label):
            self._send(t, source, readers, terms)
        for row in terms:
            self.model.add(sum(row) <= self.end)
        self.model.minimize(self.end)

    def schedule(self, value: Callable[[Literal], int]) -> Schedule:
        """What a solution decides; ops run in program order, which holds the fewest activations."""
        return Schedule(self.place.devices(value), self.net.arrays.order)

    def hints(self, device: Ints, run: Run) -> Iterator[tuple[Literal, int]]:
        """A placement as values of variables."""
        return self.place.hints(device)

    def _work(self, g: int, d: int) -> Literal:
        return self.place.on[g][d] * sum(row[d] for i, row in enumerate(self.net.ticks) if self.place.label[i] == g)

    def _send(self, t: int, source: int, readers: list[int], terms: list[list[Literal]]) -> None:
        ticks = self.net.links[t]
        model, on, devices = self.model, self.place.on, range(self.net.devices)
        pays = self.net.arrays.pays.tolist()
        if len({ticks[s][d] for s in devices for d in devices if s != d}) <= 1:
            return self._send_alike(t, source, readers, self.net.nearest[t], terms)
        for s in devices:
            sent = model.new_int_var(0, max(ticks[s]), f"sent{t}_{s}")
            terms[s].append(pays[s] * sent)
            for d in devices:
                if s != d:
                    goes = model.new_bool_var(f"goes{t}_{s}_{d}")
                    for g in readers:
                        model.add_bool_or(goes, negated(on[source][s]), negated(on[g][d]))
                    model.add(sent >= ticks[s][d] * goes)
                    terms[d].append(pays[d] * ticks[s][d] * goes)
        return None

    def _send_alike(self, t: int, source: int, readers: list[int], ticks: int, terms: list[list[Literal]]) -> None:
        """All links take as long: what matters is whether the tensor leaves, and where it arrives."""
        model, on = self.model, self.place.on
        for d in self.net.arrays.pays.nonzero()[0].tolist():
            leaves, arrives = (model.new_bool_var(f"{what}{t}_{d}") for what in ("leaves", "arrives"))
            for g in readers:
                same = self.place.same(source, g)
                model.add_bool_or(leaves, negated(on[source][d]), same)
                model.add_bool_or(arrives, negated(on[g][d]), same)
            terms[d] += [ticks * leaves, ticks * arrives]


def _crossing(net: Net, label: list[int]) -> list[tuple[int, int, list[int]]]:
    """Each tensor that takes time to send, the class that makes it, and the other classes that read it."""
    readers: dict[int, dict[int, None]] = {}
    for _, j, t in net.edges:
        readers.setdefault(t, {})[label[j]] = None
    found = []
    for t, classes in readers.items():
        source = label[int(net.arrays.t_op[t])]
        others = [g for g in classes if g != source]
        if others and net.farthest[t] > 0:
            found.append((t, source, others))
    return found
