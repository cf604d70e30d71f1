"""Transfers that wait for each other: intervals on the lanes of the devices that send and that receive."""

from collections.abc import Iterable
from itertools import chain

from baechi.cost.problem import SEQUENTIAL
from baechi.placers._cp_latency import Latency
from baechi.placers._cp_place import Literal, negated

__all__ = ["share_lanes"]


def share_lanes(model: Latency) -> None:
    """Add the transfers to a model, one at a time on each lane; of a device that works in host memory there is none."""
    lanes = _Lanes(model)
    for t, (i, readers) in model.travelling.items():
        for d in range(model.net.devices):
            there = [j for j in readers if not isinstance(model.place.at(j, d), int)]
            if there:
                lanes.copy(t, i, there, d)
    pays = model.net.arrays.pays
    for d, lane in enumerate(chain(lanes.out, lanes.into)):
        if lane and pays[d % model.net.devices]:
            model.model.add_no_overlap(lane)


class _Lanes:
    """What goes out of each device and into it; of sequential transfers both are one lane."""

    def __init__(self, model: Latency) -> None:
        self.latency, self.net, self.place, self.model = model, model.net, model.place, model.model
        self.out: list[list[Literal]] = [[] for _ in range(self.net.devices)]
        one = self.net.arrays.contention == SEQUENTIAL
        self.into: list[list[Literal]] = self.out if one else [[] for _ in range(self.net.devices)]

    def copy(self, t: int, i: int, readers: list[int], d: int) -> None:
        """The transfer of tensor `t`, which op `i` makes, to device `d`, where only `readers` may be.

        Where all links into the device are alike, what it receives is one interval wherever it comes from.
        """
        place, links = self.place, self.net.links[t]
        sources = [s for s in range(self.net.devices) if s != d and not isinstance(place.at(i, s), int)]
        ticks = {links[s][d] for s in sources}
        first, last = self.latency.earliest_stop(i), max(self.latency.latest_start(j) for j in readers)
        if not sources or last - min(ticks) < first:
            for j in readers:
                self.model.add_bool_or(place.at(i, d), ~place.at(j, d))
            return
        begin = self.model.new_int_var(first, last - min(ticks), f"send{t}_{d}")
        comes = self._comes(t, i, readers, d)
        self.model.add(begin >= self.latency.stop[i]).only_enforce_if(comes)
        for s in sources:
            goes = self.model.new_bool_var(f"goes{t}_{s}_{d}")
            self.model.add_implication(goes, place.at(i, s))
            self.model.add_implication(goes, comes)
            self.model.add_bool_or(goes, ~comes, ~place.at(i, s))
            moving = self._moving(begin, links[s][d], goes, f"copy{t}_{s}_{d}")
            self.out[s].append(moving)
            if len(ticks) > 1:
                self.into[d].append(moving)
                self._arrive(begin + links[s][d], goes, readers, d)
        if len(ticks) == 1:
            self.into[d].append(self._moving(begin, min(ticks), comes, f"copy{t}_{d}"))
            self._arrive(begin + min(ticks), comes, readers, d)
        self.latency.sent[t, d] = begin, links

    def _comes(self, t: int, i: int, readers: Iterable[int], d: int) -> Literal:
        """Whether the tensor is sent to the device."""
        comes = self.model.new_bool_var(f"comes{t}_{d}")
        self.model.add_bool_or(~comes, negated(self.place.at(i, d)))
        for j in readers:
            self.model.add_bool_or(comes, self.place.at(i, d), ~self.place.at(j, d))
        return comes

    def _moving(self, begin: Literal, ticks: int, present: Literal, name: str) -> Literal:
        return self.model.new_optional_fixed_size_interval_var(begin, ticks, present, name)

    def _arrive(self, end: Literal, present: Literal, readers: Iterable[int], d: int) -> None:
        for j in readers:
            self.model.add(self.latency.start[j] >= end).only_enforce_if(present, self.place.at(j, d))
