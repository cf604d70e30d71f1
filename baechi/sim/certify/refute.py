"""Whether a step can take at most a given time: what must share a device then, and whether that leaves room."""

import numpy as np

from baechi.cost.jit import kernel, leaf, maker
from baechi.cost.problem import Ints
from baechi.sim.certify.energy import overloads
from baechi.sim.certify.machine import select, too_long, trees_of
from baechi.sim.certify.net import Net
from baechi.sim.certify.pairs import between, join_pairs, raise_pairs
from baechi.sim.certify.rivals import part, too_many
from baechi.sim.certify.windows import Windows, find, homes, sweep, together

__all__ = ["refutes", "widest"]

_MOST_ROUNDS = 60


@kernel
def widest(net: Net, w: Windows) -> int:
    """Raise the windows of all plans, however long they take, once; returns the longest way through an op."""
    home = np.empty(len(net.p), np.int64)
    homes(net, w, home)
    sweep(net, w, home)
    longest = 0
    for i in range(len(net.p)):
        longest = max(longest, w.head[i] + net.p[i] + w.tail[i])
    return longest


@kernel
def refutes(net: Net, w: Windows, limit: int, devices: int, selected: int, starts: int) -> bool:
    """Whether no plan takes at most `limit` ticks; false says nothing.

    Where sending a tensor would make the longest way through it longer than the limit, maker and
    reader share a device. Ops of one device run one after the other, which raises heads and tails,
    and so on (a destructive bound: Klein and Scholl, "Computing lower bounds by destructive
    improvement", 1999). With `Windows.apart` kept, any two ops are looked at, not only neighbours.

    Args:
        net: the step.
        w: the windows so far; they grow.
        limit: the time in question.
        devices: their number.
        selected: trees of up to this many ops are looked at op by op.
        starts: of the intervals whose work is counted.
    """
    home = np.empty(len(net.p), np.int64)
    for _ in range(_MOST_ROUNDS):
        homes(net, w, home)
        rose = sweep(net, w, home)
        if _late(net, w, limit):
            return True
        joined = _join(net, w, home, limit)
        homes(net, w, home)
        trees = trees_of(net, w, home)
        if joined == 2 or too_long(net, w, trees, limit):
            return True
        ordered = select(net, w, trees, limit, selected)
        if ordered == 2:
            return True
        if rose or joined or ordered:
            continue
        if len(w.apart) == 0:
            break
        gaps = between(net, w, home)
        rose = raise_pairs(net, w, home, gaps)
        if _late(net, w, limit):
            return True
        joined = join_pairs(net, w, home, gaps, limit)
        if joined == 2:
            return True
        if rose or joined:
            continue
        parted = part(net, w, trees, limit)
        joined = too_many(net, w, devices)
        if joined == 2:
            return True
        if not parted and not joined:
            break
    return overloads(net, w, limit, starts)


@leaf
def _late(net: Net, w: Windows, limit: int) -> bool:
    late = False
    for i in range(len(net.p)):
        late |= w.head[i] + net.p[i] + w.tail[i] > limit
    return late


@maker
def _join(net: Net, w: Windows, home: Ints, limit: int) -> int:
    """Join neighbours that cannot afford to send; 2 when that is impossible, 1 when some joined."""
    joined = 0
    for i in range(len(net.p)):
        for k in range(net.in_ptr[i], net.in_ptr[i + 1]):
            u = net.in_op[k]
            if home[u] == home[i] or w.head[u] + net.p[u] + net.in_c[k] + net.p[i] + w.tail[i] <= limit:
                continue
            one, other = find(w.parent, home[u]), find(w.parent, home[i])
            if one != other:
                joined = 1
                if not together(net, w, one, other):
                    return 2
    return joined
