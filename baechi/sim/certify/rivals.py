"""Trees of groups that cannot share a device, and how many devices that takes."""

import numpy as np

from baechi.cost.jit import maker
from baechi.cost.problem import Ints
from baechi.sim.certify.machine import Trees, conflict, one_machine
from baechi.sim.certify.net import Net
from baechi.sim.certify.windows import Windows, together

__all__ = ["part", "too_many"]


@maker
def part(net: Net, w: Windows, trees: Trees, limit: int) -> bool:
    """Note which trees cannot share a device within the limit, or for their memory; true when some are new."""
    members, heap = np.empty(len(net.p), np.int64), np.empty((len(net.p) + 1, 2), np.int64)
    found = False
    for g in range(len(w.parent)):
        for h in range(g + 1, len(w.parent)):
            if w.parent[g] != g or w.parent[h] != h or w.apart[g, h]:
                continue
            large = w.nbytes[g] + w.nbytes[h] > net.room
            long = trees.work[g] > 0 and trees.work[h] > 0
            if large or (long and _clash(net, w, trees, g, h, limit, members, heap)):
                w.apart[g, h] = w.apart[h, g] = True
                found = True
    return found


@maker
def _clash(net: Net, w: Windows, trees: Trees, g: int, h: int, limit: int, members: Ints, heap: Ints) -> bool:
    """Whether two trees take longer than the limit on one device."""
    for x in range(trees.ptr[g], trees.ptr[g + 1]):
        for y in range(trees.ptr[h], trees.ptr[h + 1]):
            i, j = trees.op[x], trees.op[y]
            if net.p[i] > 0 and net.p[j] > 0 and conflict(net, w, i, j, limit):
                return True
    x, y, count = trees.ptr[g], trees.ptr[h], 0
    while x < trees.ptr[g + 1] or y < trees.ptr[h + 1]:
        left = y == trees.ptr[h + 1] or (x < trees.ptr[g + 1] and w.head[trees.op[x]] <= w.head[trees.op[y]])
        members[count] = trees.op[x] if left else trees.op[y]
        x, y, count = x + left, y + (not left), count + 1
    return one_machine(members[:count], net, w, heap) > limit


@maker
def too_many(net: Net, w: Windows, devices: int) -> int:
    """Whether more trees are pairwise apart than there are devices: 2; 1 when a tree has one device left.

    Cliques are grown greedily from each tree by the most rivals.
    """
    groups = len(w.parent)
    rivals = np.zeros(groups, np.int64)
    for g in range(groups):
        if w.parent[g] == g:
            for h in range(groups):
                rivals[g] += w.parent[h] == h and w.apart[g, h]
    clique, open_ = np.empty(devices, np.int64), np.empty(groups, np.bool_)
    for g in range(groups):
        if w.parent[g] != g or rivals[g] < devices - 1:
            continue
        for h in range(groups):
            open_[h] = w.parent[h] == h and w.apart[g, h]
        clique[0], size = g, 1
        while True:
            best = -1
            for h in range(groups):
                if open_[h] and (best < 0 or rivals[h] > rivals[best]):
                    best = h
            if best < 0:
                break
            if size == devices:
                return 2
            clique[size] = best
            size += 1
            for h in range(groups):
                open_[h] = open_[h] and w.apart[best, h]
        if size == devices:
            found = _last_device(net, w, clique)
            if found > 0:
                return found
    return 0


@maker
def _last_device(net: Net, w: Windows, clique: Ints) -> int:
    """With a tree on each device, join one that can be on one device only."""
    for h in range(len(w.parent)):
        free, count = -1, 0
        for k in range(len(clique)):
            if w.parent[h] != h or clique[k] == h:
                count = 2
            elif not w.apart[h, clique[k]]:
                free = clique[k]
                count += 1
        if count == 0 or (count == 1 and not together(net, w, h, free)):
            return 2
        if count == 1:
            return 1
    return 0
