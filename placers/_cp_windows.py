"""When an op can run and what must or cannot share a device, in any plan of at most a given length.

An op starts no sooner than its inputs are there. Of an ancestor that ends too late for a transfer
to come in time, it follows that the two share a device, and what shares a device runs one after the
other (Papadimitriou and Yannakakis, "Towards an architecture-independent analysis of parallel
algorithms", 1990; here with a preemptive one-machine bound, Jackson's, and over chains of transfers
of which one at least must cross). The same holds backwards from the end. A pair that would be too
late apart is drawn together, a pair that would be too late together is kept apart, and so on until
nothing changes or nothing is left.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baechi.cost.jit import kernel, leaf, maker
from baechi.cost.problem import Ints
from baechi.placers._cp_net import Net

__all__ = ["Windows", "least_horizon", "windows"]

_APART, _TOGETHER, _NONE = range(3)
_NO_PATH = -1

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Windows:
    """What holds in every plan of at most `horizon` units.

    Attributes:
        horizon: the length.
        label: (ops,) classes of ops that share a device.
        head: (ops,) units before which an op cannot start.
        tail: (ops,) units that pass after its end.
        apart: (labels, labels) classes that cannot share a device.
        allowed: (labels, devices) where a class can be.
        lag, far: (ops, ops) least units from the end of an op to the start of another that waits for
            it, and those when they are apart; -1 where it does not wait.
    """

    horizon: int
    label: Ints
    head: Ints
    tail: Ints
    apart: Flags
    allowed: Flags
    lag: Ints
    far: Ints


def windows(net: Net, horizon: int) -> Windows | None:
    """What holds in every plan of at most `horizon` units; None when there is none."""
    pair, wait = _edges(net)
    label, ticks = np.array(net.group, np.int64), np.array(net.ticks, np.int64)
    apart = np.zeros((len(label), len(label)), np.bool_)
    allowed = np.ones((len(label), net.devices), np.bool_)
    order = np.array(net.order, np.int64)
    fits, head, tail, lag, far = _settle(pair, wait, order, ticks, label, apart, allowed, horizon, net.least)
    if not fits:
        return None
    _, first, number = np.unique(label, return_index=True, return_inverse=True)
    rows = label[first]
    return Windows(horizon, number.astype(np.int64), head, tail, apart[np.ix_(rows, rows)], allowed[rows], lag, far)


def least_horizon(net: Net, low: int, high: int, precision: int) -> int:
    """The least horizon, from `low` on, that is not refuted; up to `precision`, on the safe side."""
    while high - low > precision:
        middle = (low + high) // 2
        if windows(net, middle) is None:
            low = middle + 1
        else:
            high = middle
    return low


def _edges(net: Net) -> tuple[Ints, Ints]:
    pairs = np.array([*net.waits.keys()], np.int64).reshape(-1, 2)
    return pairs, np.array([*net.waits.values()], np.int64)


@maker
def _jackson(release: Ints, ticks: Ints, after: Ints, count: int) -> int:
    """Least end of jobs on one machine that may be interrupted, each followed by `after` units."""
    order = np.argsort(release[:count])
    left = ticks[:count].copy()
    waiting = np.zeros(count, np.bool_)
    now, k, latest = 0, 0, 0
    for _ in range(2 * count + 1):
        best = -1
        for j in order[:k]:
            if waiting[j] and (best < 0 or after[j] > after[best]):
                best = j
        if best < 0:
            if k == count:
                break
            now = max(now, release[order[k]])
        else:
            step = left[best]
            if k < count:
                step = min(step, release[order[k]] - now)
            now += step
            left[best] -= step
            if left[best] == 0:
                waiting[best] = False
                latest = max(latest, now + after[best])
        while k < count and release[order[k]] <= now:
            waiting[order[k]] = True
            k += 1
    return int(latest)


@maker
def _lags(
    pair: Ints, wait: Ints, order: Ints, ticks: Ints, label: Ints, apart: Flags, devices: int, least: Ints
) -> tuple[Ints, Ints]:
    """Least units from the end of one op to the start of another, in any case and when apart."""
    ops = len(order)
    lag, far = np.full((ops, ops), _NO_PATH), np.full((ops, ops), _NO_PATH)
    by_source, by_target = np.argsort(pair[:, 0]), np.argsort(pair[:, 1])
    out = np.searchsorted(pair[by_source, 0], np.arange(ops + 1))
    into = np.searchsorted(pair[by_target, 1], np.arange(ops + 1))
    for u in order[::-1]:
        for k in by_source[out[u] : out[u + 1]]:
            w = pair[k, 1]
            never = label[u] == label[w]
            must = apart[label[u], label[w]]
            cross = 0 if never else wait[k]
            lag[u, w] = max(lag[u, w], cross if must else 0)
            far[u, w] = max(far[u, w], cross)
            for v in range(ops):
                if lag[w, v] < 0:
                    continue
                through = ticks[w] + lag[w, v]
                lag[u, v] = max(lag[u, v], through + (cross if must else 0))
                stay = ticks[w] + max(far[w, v], lag[w, v])
                crossed = cross + through
                far[u, v] = max(far[u, v], stay if never else (crossed if must else min(crossed, stay)))
        for v in order:
            if lag[u, v] < 0:
                continue
            for k in by_target[into[v] : into[v + 1]]:
                x = pair[k, 0]
                if lag[u, x] >= 0:
                    must = apart[label[x], label[v]]
                    lag[u, v] = max(lag[u, v], lag[u, x] + ticks[x] + (wait[k] if must else 0))
            lag[u, v] = max(lag[u, v], least[u, v], _between(u, v, ticks, lag, far, devices))
            far[u, v] = max(far[u, v], lag[u, v])
            if apart[label[u], label[v]]:
                lag[u, v] = far[u, v]
    return lag, far


@leaf
def _between(u: int, v: int, ticks: Ints, lag: Ints, far: Ints, devices: int) -> int:
    """Least time for all that runs after `u` and before `v`, spread over the devices.

    Only the device of `u` can start at once, the others when a transfer has arrived; likewise at the end.
    """
    work, first, last = 0, -1, -1
    for w in range(len(ticks)):
        if lag[u, w] >= 0 and lag[w, v] >= 0:
            work += ticks[w]
            first = far[u, w] if first < 0 else min(first, far[u, w])
            last = far[w, v] if last < 0 else min(last, far[w, v])
    lost = max(0, first) + max(0, last)
    return int(min(work, -(-(work + (devices - 1) * lost) // devices)))


@maker
def _before(v: int, head: Ints, ticks: Ints, lag: Ints, far: Ints, devices: int) -> int:
    """Least start of `v` after all that it waits for, spread over the devices: by the same reasoning."""
    start, work, last, release = 0, 0, -1, -1
    for w in np.argsort(-lag[:, v]):
        after = lag[w, v]
        if after < 0:
            break
        work += ticks[w]
        last = far[w, v] if last < 0 else min(last, far[w, v])
        release = head[w] if release < 0 else min(release, head[w])
        alone = work + after
        start = max(start, release + min(alone, -(-(alone + (devices - 1) * last) // devices)))
    return int(start)


@maker
def _fits_over_all(head: Ints, ticks: Ints, tail: Ints, devices: int, horizon: int) -> bool:
    """Whether the work between any moment and any other fits on all devices (energetic reasoning)."""
    by_tail = np.argsort(-tail)
    for release in head:
        work = 0
        for i in by_tail:
            if head[i] >= release:
                work += ticks[i]
                if release + tail[i] + -(-work // devices) > horizon:
                    return False
    return True


@maker
def _heads(order: Ints, ticks: Ints, label: Ints, lag: Ints, far: Ints, devices: int) -> Ints:
    """Least start of each op."""
    ops = len(order)
    head = np.zeros(ops, np.int64)
    release, work, after = np.empty(ops, np.int64), np.empty(ops, np.int64), np.empty(ops, np.int64)
    near = np.full(ops, -1, np.int64)
    for v in order:
        start = _before(v, head, ticks, lag, far, devices)
        for u in range(ops):
            if lag[u, v] >= 0:
                start = max(start, head[u] + ticks[u] + lag[u, v])
        while True:
            near[label[v]] = v
            following = -1
            for u in range(ops):
                if lag[u, v] < 0 or label[u] == label[v]:
                    continue
                arrival = head[u] + ticks[u] + far[u, v]
                if arrival > start:
                    near[label[u]] = v
                    if following < 0 or arrival < following:
                        following = arrival
            count = 0
            for u in range(ops):
                if lag[u, v] >= 0 and near[label[u]] == v:
                    release[count], work[count], after[count] = head[u], ticks[u], lag[u, v]
                    count += 1
            together = _jackson(release, work, after, count)
            if together <= start:
                break
            start = together if following < 0 else min(together, following)
            near[:] = -1
        head[v] = start
        near[:] = -1
    return head


@maker
def _one_machine(members: Ints, ptr: Ints, g: int, h: int, ticks: Ints, head: Ints, tail: Ints, scratch: Ints) -> int:
    """Least length when all ops of one or two classes share a device."""
    count = 0
    for label in (g, h):
        for i in members[ptr[label] : ptr[label + 1]]:
            scratch[0, count], scratch[1, count], scratch[2, count] = head[i], ticks[i], tail[i]
            count += 1
        if g == h:
            break
    return _jackson(scratch[0], scratch[1], scratch[2], count)


@maker
def _merge(label: Ints, apart: Flags, allowed: Flags, g: int, h: int) -> None:
    for i in range(len(label)):
        if label[i] == h:
            label[i] = g
    for k in range(len(apart)):
        apart[g, k] |= apart[h, k]
        apart[k, g] |= apart[k, h]
    for d in range(allowed.shape[1]):
        allowed[g, d] &= allowed[h, d]


@kernel
def _settle(
    pair: Ints,
    wait: Ints,
    order: Ints,
    each: Ints,
    label: Ints,
    apart: Flags,
    allowed: Flags,
    horizon: int,
    least: Ints,
) -> tuple[bool, Ints, Ints, Ints, Ints]:
    """Draw together, keep apart and bar until nothing changes; changes `label`, `apart` and `allowed`."""
    ops, devices = each.shape
    ticks = np.empty(ops, np.int64)
    scratch = np.empty((3, ops), np.int64)
    head, tail = np.zeros(ops, np.int64), np.zeros(ops, np.int64)
    lag, far = np.zeros((0, 0), np.int64), np.zeros((0, 0), np.int64)
    fits, changed = True, True
    while fits and changed:
        changed = False
        for i in range(ops):
            ticks[i] = horizon + 1
            for d in range(devices):
                if allowed[label[i], d]:
                    ticks[i] = min(ticks[i], each[i, d])
        lag, far = _lags(pair, wait, order, ticks, label, apart, devices, least)
        head = _heads(order, ticks, label, lag, far, devices)
        tail = _heads(order[::-1].copy(), ticks, label, lag.T.copy(), far.T.copy(), devices)
        for i in range(ops):
            fits &= head[i] + ticks[i] + tail[i] <= horizon
        fits &= _fits_over_all(head, ticks, tail, devices, horizon)
        if not fits:
            break
        for u in range(ops):
            for v in range(ops):
                if lag[u, v] < 0 or label[u] == label[v]:
                    continue
                if head[u] + ticks[u] + far[u, v] + ticks[v] + tail[v] > horizon:
                    fits &= not apart[label[u], label[v]]
                    _merge(label, apart, allowed, label[u], label[v])
                    changed = True
        if changed:
            continue
        ptr = np.zeros(ops + 1, np.int64)
        for i in range(ops):
            ptr[label[i] + 1] += 1
        ptr = np.cumsum(ptr)
        members = np.argsort(label)
        for g in range(ops):
            if ptr[g] == ptr[g + 1]:
                continue
            possible = False
            for d in range(devices):
                if allowed[g, d]:
                    if _one_machine(members, ptr, g, g, each[:, d].copy(), head, tail, scratch) > horizon:
                        allowed[g, d] = False
                        changed = True
                    else:
                        possible = True
            fits &= possible
            for h in range(g + 1, ops):
                if ptr[h] == ptr[h + 1] or apart[g, h]:
                    continue
                if _one_machine(members, ptr, g, h, ticks, head, tail, scratch) > horizon:
                    apart[g, h] = apart[h, g] = True
                    changed = True
    return fits, head, tail, lag, far
