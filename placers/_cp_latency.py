"""Latency as a constraint programme: when each op and transfer starts, by the rules of the simulator."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from baechi.cost.problem import TOKEN, Ints
from baechi.placers._cp_place import Literal, Placement, negated
from baechi.placers._cp_windows import Windows
from baechi.sim.evaluate import Schedule
from baechi.sim.state import Run

__all__ = ["Latency"]


class Latency:
    """Ops to devices and moments so that the last one ends soonest.

    Every device runs one op at a time; an op that reads what is made on another device waits for its
    transfer. That transfers wait for each other and what memory holds can be added.

    Args:
        place: who shares a device, by the classes of `w`.
        w: what holds in every plan of at most its horizon.
        low: a bound on the objective.
    """

    def __init__(self, place: Placement, w: Windows, low: int) -> None:
        self.place, self.net, self.model = place, place.net, place.model
        self._windows, self.horizon = w, w.horizon
        self.travelling = self._transfers()
        self.released: dict[int, Literal] = {}
        self.end = self.model.new_int_var(min(low, w.horizon), w.horizon, "end")
        self.start = [self._start(i) for i in range(len(w.head))]
        self.stop = [self._stop(i) for i in range(len(w.head))]
        self.sent: dict[tuple[int, int], tuple[Literal, Sequence[Sequence[int]]]] = {}
        for i, stop in enumerate(self.stop):
            self.model.add(stop + int(w.tail[i]) <= self.end)
        self._one_at_a_time()
        self._work_of_devices()
        self._wait()
        self._keep_distance()
        place.keep_apart(w.apart)
        self.model.minimize(self.end)

    def earliest_stop(self, i: int) -> int:
        """The unit before which an op cannot end."""
        return int(self._windows.head[i]) + self._shortest(i)

    def latest_start(self, i: int) -> int:
        """The unit after which an op cannot start."""
        return self.horizon - int(self._windows.tail[i]) - self._shortest(i)

    def _start(self, i: int) -> Literal:
        return self.model.new_int_var(int(self._windows.head[i]), self.latest_start(i), f"start{i}")

    def _shortest(self, i: int) -> int:
        allowed = self._windows.allowed[self.place.label[i]]
        return min(ticks for ticks, open_ in zip(self.net.ticks[i], allowed, strict=True) if open_)

    def _stop(self, i: int) -> Literal:
        ticks = self.net.ticks[i]
        if len(set(ticks)) == 1:
            return self.start[i] + ticks[0]
        w = self._windows
        stop = self.model.new_int_var(self.earliest_stop(i), w.horizon - int(w.tail[i]), f"stop{i}")
        taken = sum(ticks[d] * self.place.at(i, d) for d in range(self.net.devices))
        self.model.add(stop == self.start[i] + taken)
        return stop

    def _one_at_a_time(self) -> None:
        net, model, place = self.net, self.model, self.place
        for d in range(net.devices):
            running = [
                model.new_optional_fixed_size_interval_var(start, net.ticks[i][d], place.at(i, d), f"op{i}_{d}")
                for i, start in enumerate(self.start)
                if not isinstance(place.at(i, d), int)
            ]
            model.add_no_overlap(running)
        if net.devices > 1 and all(len(set(ticks)) == 1 for ticks in net.ticks):
            every = [
                model.new_fixed_size_interval_var(start, net.ticks[i][0], f"op{i}")
                for i, start in enumerate(self.start)
            ]
            model.add_cumulative(every, [1] * len(every), net.devices)

    def _work_of_devices(self) -> None:
        for d in range(self.net.devices):
            work = sum(row[d] * self.place.at(i, d) for i, row in enumerate(self.net.ticks))
            self.model.add(work <= self.end)

    def _wait(self) -> None:
        model, label = self.model, self.place.label
        for (i, j), wait in self.net.waits.items():
            model.add(self.start[j] >= self.stop[i])
            if wait > 0 and label[i] != label[j]:
                apart = negated(self.place.same(label[i], label[j]))
                model.add(self.start[j] >= self.stop[i] + wait).only_enforce_if(apart)
        for i, j, t in self.net.edges:
            if self.net.farthest[t] > self.net.nearest[t] and label[i] != label[j]:
                self._wait_by_link(i, j, self.net.links[t])

    def _keep_distance(self) -> None:
        """Least times between ops that do not follow from those between their neighbours."""
        w, shortest = self._windows, np.array([self._shortest(i) for i in range(len(self.start))])
        implied = np.zeros_like(w.lag)
        for i, j in self.net.waits:
            implied[:, j] = np.maximum(implied[:, j], np.where(w.lag[:, i] >= 0, w.lag[:, i] + shortest[i], 0))
            implied[i] = np.maximum(implied[i], np.where(w.lag[j] >= 0, w.lag[j] + shortest[j], 0))
        for i, j in zip(*np.nonzero(w.lag > implied), strict=True):
            self.model.add(self.start[j] >= self.stop[i] + int(w.lag[i, j]))

    def _wait_by_link(self, i: int, j: int, ticks: Sequence[Sequence[int]]) -> None:
        for s in range(self.net.devices):
            for d in range(self.net.devices):
                if s != d:
                    wait = self.model.add(self.start[j] >= self.stop[i] + ticks[s][d])
                    wait.only_enforce_if(self.place.at(i, s), self.place.at(j, d))

    def _transfers(self) -> dict[int, tuple[int, list[int]]]:
        """Tensors that may travel: the op that makes each, and the ops of other classes that read it."""
        net, label = self.net, self.place.label
        found: dict[int, tuple[int, list[int]]] = {}
        for i, j, t in net.edges:
            if label[i] != label[j] and net.arrays.t_ticks[t] != TOKEN:
                found.setdefault(t, (i, []))[1].append(j)
        return found

    def schedule(self, value: Callable[[Literal], int]) -> Schedule:
        """What a solution decides.

        Ops and transfers in the order of start and end; what takes no time and ties in both comes in
        topological order, so that nothing waits for itself.
        """
        a, place = self.net.arrays, self.place
        device = place.devices(value)
        start, stop = ([value(one) for one in many] for many in (self.start, self.stop))
        sequence = sorted(range(len(start)), key=lambda i: (start[i], stop[i], a.rank[i]))
        copies = []
        for (t, d), (begin, links) in self.sent.items():
            i = int(a.t_op[t])
            readers = a.rd_op[a.rd_ptr[t] : a.rd_ptr[t + 1]]
            if device[i] != d and (device[readers] == d).any():
                at = value(begin)
                copies.append((at, at + links[device[i]][d], a.rank[i], t, d))
        sent = np.array([copy[3:] for copy in sorted(copies)], np.int64).reshape(-1, 2)
        return Schedule(device, np.array(sequence, np.int64), sent if len(sent) else None)

    def hints(self, device: Ints, run: Run) -> Iterator[tuple[Literal, int]]:
        """A simulated schedule as values of variables."""
        yield from self.place.hints(device)
        for start, ticks in zip(self.start, run.op_start.tolist(), strict=True):
            yield start, ticks // self.net.unit
