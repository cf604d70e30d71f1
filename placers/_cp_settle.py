"""The compiled loops behind `_cp_windows`: heads and tails, and what follows for a horizon."""

import numpy as np

from baechi.cost.jit import kernel, leaf, maker
from baechi.cost.problem import Ints
from baechi.placers._cp_lags import Edges, Flags, lags

__all__ = ["settle"]


@leaf
def _sort(values: Ints, count: int, order: Ints) -> None:
    """Indices of the first `count` values, ascending and stable (insertion sort: short, quick to compile)."""
    for k in range(count):
        at = k
        while at > 0 and values[order[at - 1]] > values[k]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = k


@maker
def _jackson(release: Ints, ticks: Ints, after: Ints, count: int) -> int:
    """Least end of jobs on one machine that may be interrupted, each followed by `after` units."""
    order, left, waiting = np.empty(count, np.int64), np.empty(count, np.int64), np.zeros(count, np.int64)
    _sort(release, count, order)
    for j in range(count):
        left[j] = ticks[j]
    now, k, latest = 0, 0, 0
    for _ in range(2 * count + 1):
        best = -1
        for at in range(k):
            j = order[at]
            if waiting[j] == 1 and (best < 0 or after[j] > after[best]):
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
                waiting[best] = 0
                latest = max(latest, now + after[best])
        while k < count and release[order[k]] <= now:
            waiting[order[k]] = 1
            k += 1
    return int(latest)


@maker
def _before(v: int, head: Ints, ticks: Ints, lag: Ints, far: Ints, devices: int) -> int:
    """Least start of `v` after all that it waits for, spread over the devices: by the same reasoning."""
    ops = len(head)
    after_of, order = np.empty(ops, np.int64), np.empty(ops, np.int64)
    for w in range(ops):
        after_of[w] = -lag[w, v]
    _sort(after_of, ops, order)
    start, work, last, release = 0, 0, -1, -1
    for at in order:
        w = int(at)
        after = lag[w, v]
        if after < 0:
            break
        work += ticks[w]
        last = int(far[w, v]) if last < 0 else min(last, int(far[w, v]))
        release = int(head[w]) if release < 0 else min(release, int(head[w]))
        alone = work + after
        start = max(start, release + min(alone, -(-(alone + (devices - 1) * last) // devices)))
    return int(start)


@maker
def _fits_over_all(head: Ints, ticks: Ints, tail: Ints, devices: int, horizon: int) -> bool:
    """Whether the work between any moment and any other fits on all devices (energetic reasoning)."""
    ops = len(head)
    minus, by_tail = np.empty(ops, np.int64), np.empty(ops, np.int64)
    for i in range(ops):
        minus[i] = -tail[i]
    _sort(minus, ops, by_tail)
    for release in head:
        work = 0
        for at in by_tail:
            i = int(at)
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
            for u in range(ops):
                near[u] = -1
        head[v] = start
        for u in range(ops):
            near[u] = -1
    return head


@maker
def _one_machine(label: Ints, g: int, h: int, ticks: Ints, d: int, head: Ints, tail: Ints, scratch: Ints) -> int:
    """Least length when all ops of one or two classes share a device; its times are a column of `ticks`."""
    count = 0
    for i in range(len(label)):
        if label[i] == g or label[i] == h:
            scratch[0, count], scratch[1, count], scratch[2, count] = head[i], ticks[i, d], tail[i]
            count += 1
    return _jackson(scratch[0], scratch[1], scratch[2], count)


@maker
def _merge(label: Ints, apart: Flags, allowed: Flags, g: int, h: int) -> None:
    g, h = min(g, h), max(g, h)  # a class goes by its first op
    for i in range(len(label)):
        if label[i] == h:
            label[i] = g
    for k in range(len(apart)):
        apart[g, k] |= apart[h, k]
        apart[k, g] |= apart[k, h]
    for d in range(allowed.shape[1]):
        allowed[g, d] &= allowed[h, d]


@maker
def _separate(
    each: Ints,
    ticks: Ints,
    label: Ints,
    apart: Flags,
    allowed: Flags,
    head: Ints,
    tail: Ints,
    horizon: int,
    scratch: Ints,
) -> tuple[bool, bool]:
    """Bar classes from devices on which they take too long, and keep two apart that take too long together."""
    ops, devices = each.shape
    fits, changed = True, False
    fastest = ticks.reshape(ops, 1)
    for g in range(ops):
        if label[g] != g:
            continue
        possible = False
        for d in range(devices):
            if allowed[g, d] and _one_machine(label, g, g, each, d, head, tail, scratch) > horizon:
                allowed[g, d] = False
                changed = True
            possible |= allowed[g, d]
        fits &= possible
        for h in range(g + 1, ops):
            if label[h] != h or apart[g, h]:
                continue
            if _one_machine(label, g, h, fastest, 0, head, tail, scratch) > horizon:
                apart[g, h] = apart[h, g] = True
                changed = True
    return fits, changed


@kernel
def settle(
    e: Edges,
    order: Ints,
    backward: Ints,
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
        lag, far = lags(e, order, ticks, label, apart, devices, least)
        head = _heads(order, ticks, label, lag, far, devices)
        tail = _heads(backward, ticks, label, lag.T.copy(), far.T.copy(), devices)
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
        fits, changed = _separate(each, ticks, label, apart, allowed, head, tail, horizon, scratch)
    return fits, head, tail, lag, far
