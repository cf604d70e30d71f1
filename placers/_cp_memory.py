"""Memory while a step runs, as cumulative constraints on the latency model.

Only what certainly takes memory is counted, so that no plan that fits is lost: a view is counted
with its base where both are sure to share a device.
"""

import numpy as np

from baechi.cost.problem import TOKEN, Arrays, Ints
from baechi.placers._cp_latency import Latency
from baechi.placers._cp_place import Literal, negated

__all__ = ["can_bind", "hold"]

_MOST_BYTES = 1 << 24
"""The capacity of a device in the solver's unit of bytes."""


def can_bind(a: Arrays) -> bool:
    """Whether some schedule might exceed a cap: all tensors and copies of them on one device do."""
    everything = (
        a.persistent.sum() + a.t_size.sum() + a.t_bytes.sum() + a.t_packed.sum() * len(a.cap) + a.temp.max(initial=0)
    )
    return bool(everything > a.cap.min())


def hold(model: Latency) -> None:
    """Add the memory of each device, from the start of what makes it to the end of what reads it last."""
    for d in range(model.net.devices):
        _Device(model, d).constrain()


class _Device:
    def __init__(self, model: Latency, d: int) -> None:
        self.model, self.d = model, d
        self.a = model.net.arrays
        self.unit = max(1, int(self.a.cap[d]) // _MOST_BYTES)
        self.intervals: list[Literal] = []
        self.demands: list[int] = []

    def constrain(self) -> None:
        self._hold_what_persists()
        self._hold_what_is_made()
        self._hold_copies()
        self.model.model.add_cumulative(self.intervals, self.demands, int(self.a.cap[self.d]) // self.unit)

    def _add(self, begin: Literal, end: Literal, present: Literal, nbytes: int, name: str) -> None:
        if nbytes < self.unit or isinstance(present, int):
            return
        model = self.model.model
        size = model.new_int_var(0, self.model.horizon, f"{name}_size")
        self.intervals.append(model.new_optional_interval_var(begin, size, end, present, name))
        self.demands.append(nbytes // self.unit)

    def _hold_what_persists(self) -> None:
        place = self.model.place
        nbytes = np.bincount(place.label, self.a.persistent, len(place.on))
        for g, row in enumerate(place.on):
            self._add(0, self.model.horizon, row[self.d], int(nbytes[g]), f"persistent{g}_{self.d}")

    def _hold_what_is_made(self) -> None:
        model, a = self.model, self.a
        for i, start in enumerate(model.start):
            self._add(start, model.stop[i], model.place.at(i, self.d), int(a.temp[i]), f"temp{i}_{self.d}")
        roots = _roots(a, model.place.label)
        for t in np.flatnonzero((a.t_base < 0) & (a.t_size > 0)).tolist():
            i = int(a.t_op[t])
            members = np.flatnonzero(roots == t)
            end = model.horizon if a.t_keep[members].any() else self._released(t, i, members)
            self._add(model.start[i], end, model.place.at(i, self.d), int(a.t_size[t]), f"tensor{t}_{self.d}")

    def _released(self, t: int, i: int, members: Ints) -> Literal:
        """When no local reader and no transfer of a tensor or its views is left; shared by all devices."""
        model, a = self.model, self.a
        if t in model.released:
            return model.released[t]
        end = model.released[t] = model.model.new_int_var(0, model.horizon, f"released{t}")
        model.model.add(end >= model.stop[i])
        for m in members.tolist():
            maker = int(a.t_op[m])
            model.model.add(end >= model.stop[maker])
            for j in a.rd_op[a.rd_ptr[m] : a.rd_ptr[m + 1]].tolist():
                same = model.place.same(model.place.label[maker], model.place.label[j])
                model.model.add(end >= model.stop[j]).only_enforce_if(same)
                if a.t_ticks[m] != TOKEN:
                    sent = model.model.add(end >= model.stop[maker] + model.net.nearest[m])
                    sent.only_enforce_if(negated(same))
        return end

    def _hold_copies(self) -> None:
        """Copies from the start of their transfer, or, when no lane holds it up, from its tensor's making."""
        model, a, d = self.model, self.a, self.d
        for t, (i, readers) in model.travelling.items():
            nbytes = int(a.t_bytes[t])
            if nbytes < self.unit:
                continue
            here = model.model.new_bool_var(f"held{t}_{d}")
            end = model.model.new_int_var(0, model.horizon, f"read{t}_{d}")
            for j in readers:
                model.model.add_bool_or(here, model.place.at(i, d), negated(model.place.at(j, d)))
                model.model.add(end >= model.stop[j]).only_enforce_if(here, model.place.at(j, d))
            begin = model.sent[t, d][0] if (t, d) in model.sent else model.stop[i]
            self._add(begin, end, here, nbytes, f"copy{t}_{d}")


def _roots(a: Arrays, label: list[int]) -> Ints:
    """The tensor in whose memory each lies; itself where that may be on another device."""
    root = np.arange(len(a.t_op))
    for i in a.order.tolist():
        for t in range(int(a.out_ptr[i]), int(a.out_ptr[i + 1])):
            base = int(a.t_base[t])
            if base >= 0 and label[int(a.t_op[base])] == label[i]:
                root[t] = root[base]
    return root
