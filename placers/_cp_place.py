"""Who shares a device: the part of the constraint programme that both objectives have."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from ortools.sat.python import cp_model

from baechi.cost.problem import Ints
from baechi.placers._cp_lags import Flags
from baechi.placers._cp_net import Net

__all__ = ["Literal", "Placement", "negated"]

Literal = Any
"""A Boolean variable of the model, its negation, or a constant."""


class Placement:
    """The device of each class of ops.

    Devices that are alike are told apart by their first class: the first that has one is the first
    to be used (value precedence; Law and Lee 2004).

    Args:
        net: the problem.
        label: (ops,) classes of ops that share a device.
        allowed: (labels, devices) where each can be.
    """

    def __init__(self, net: Net, label: Ints, allowed: Flags) -> None:
        self.net, self.model = net, cp_model.CpModel()
        self.label: list[int] = label.tolist()
        self.first = list(dict.fromkeys(self.label[i] for i in net.order))
        labels, devices = allowed.shape
        self.on: list[list[Literal]] = [
            [self.model.new_bool_var(f"on{g}_{d}") if allowed[g, d] else 0 for d in range(devices)]
            for g in range(labels)
        ]
        for row in self.on:
            self.model.add_exactly_one(v for v in row if not isinstance(v, int))
        self._same: dict[tuple[int, int], Literal] = {}
        self._break_symmetry(allowed)
        self._hold_what_persists()

    def at(self, i: int, d: int) -> Literal:
        """Whether op `i` is on device `d`."""
        return self.on[self.label[i]][d]

    def same(self, g: int, h: int) -> Literal:
        """Whether two classes share a device."""
        if g == h:
            return 1
        key = min(g, h), max(g, h)
        if key not in self._same:
            self._same[key] = both = self.model.new_bool_var(f"same{key[0]}_{key[1]}")
            for one, other in zip(self.on[g], self.on[h], strict=True):
                self.model.add_bool_or(~both, negated(one), other)
                self.model.add_bool_or(~both, negated(other), one)
                self.model.add_bool_or(both, negated(one), negated(other))
        return self._same[key]

    def keep_apart(self, apart: Flags) -> None:
        """Pairs of classes that never share a device."""
        for g, h in zip(*np.nonzero(np.triu(apart)), strict=True):
            for one, other in zip(self.on[g], self.on[h], strict=True):
                self.model.add_bool_or(negated(one), negated(other))
            if (int(g), int(h)) in self._same:
                self.model.add(self._same[int(g), int(h)] == 0)

    def devices(self, value: Callable[[Literal], int]) -> Ints:
        """The device of each op in a solution."""
        home = [next(d for d, one in enumerate(row) if value(one)) for row in self.on]
        return np.array([home[g] for g in self.label], np.int64)

    def hints(self, device: Ints) -> Iterator[tuple[Literal, int]]:
        """A placement as values of variables; devices that are alike in the order in which they are used."""
        home = [int(device[self.label.index(g)]) for g in range(len(self.on))]
        number = list(range(self.net.devices))
        for devices in self.net.alike:
            used = list(dict.fromkeys(home[g] for g in self.first if home[g] in devices))
            for d, name in zip([*used, *(d for d in devices if d not in used)], devices, strict=True):
                number[d] = name
        for row, d in zip(self.on, home, strict=True):
            yield from ((one, int(number[d] == e)) for e, one in enumerate(row) if not isinstance(one, int))

    def _break_symmetry(self, allowed: Flags) -> None:
        for devices in self.net.alike:
            if not (allowed[:, devices] == allowed[:, devices[:1]]).all():
                continue
            for before, d in pairwise(devices):
                for k, g in enumerate(self.first):
                    earlier = [self.on[h][before] for h in self.first[:k]]
                    self.model.add_bool_or(*earlier, negated(self.on[g][d]))

    def _hold_what_persists(self) -> None:
        """What persists, with what one op needs besides, and with what is kept to the end."""
        a = self.net.arrays
        own = (a.t_base < 0) & (a.t_size > 0)
        made = np.bincount(a.t_op[own], a.t_size[own], len(a.rank)).astype(np.int64) + a.temp
        kept = own & (a.t_keep != 0)
        keeps = np.bincount(a.t_op[kept], a.t_size[kept], len(a.rank)).astype(np.int64)
        persistent, after, most = ([0] * len(self.on) for _ in range(3))
        for i, g in enumerate(self.label):
            persistent[g] += int(a.persistent[i])
            after[g] += int(a.persistent[i] + keeps[i])
            most[g] = max(most[g], int(made[i]))
        for d in range(self.net.devices):
            cap, here = int(a.cap[d]), [row[d] for row in self.on]
            if sum(after) > cap:
                self.model.add(sum(n * one for n, one in zip(after, here, strict=True)) <= cap)
            if sum(persistent) + max(most, default=0) > cap:
                held = sum(n * one for n, one in zip(persistent, here, strict=True))
                for g, one in enumerate(here):
                    self.model.add(held + most[g] * one <= cap)


def negated(literal: Literal) -> Literal:
    """The negation of a literal."""
    return 1 - literal if isinstance(literal, int) else ~literal
