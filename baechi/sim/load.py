"""How busy a step keeps each device: what bounds a pipeline of steps that follow each other."""

import numpy as np

from baechi.cost.jit import kernel
from baechi.cost.problem import TOKEN, Arrays, Ints
from baechi.sim.transfers import transfer_ticks

__all__ = ["loads"]


@kernel
def loads(a: Arrays, device: Ints) -> Ints:
    """Load of each device in ticks: its ops, each tensor that it sends, each copy that it receives.

    A tensor that goes to several devices is sent once, at its longest transfer. In a steady
    pipeline of steps a device spends this time on every step, so the highest load is the time for
    each step. A device that works in host memory reads and writes what the others copy there and back:
    its load is its ops alone.

    Args:
        a: the problem.
        device: (ops,) device of each op.

    Source: Tarnawski et al., "Efficient Algorithms for Device Placement of DNN Graph Operators",
    NeurIPS 2020, section 3.
    """
    load = np.zeros(len(a.cap), np.int64)
    received = np.full(len(a.cap), -1, np.int64)
    for i in range(len(device)):
        load[device[i]] += a.ticks[i, device[i]]
    for t in range(len(a.t_op)):
        if a.t_ticks[t] == TOKEN:
            continue
        source, longest = device[a.t_op[t]], 0
        for k in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
            d = device[a.rd_op[k]]
            if d == source or received[d] == t:
                continue
            received[d] = t
            ticks = transfer_ticks(a, t, source, d)
            load[d] += a.pays[d] * ticks
            longest = max(longest, ticks)
        load[source] += a.pays[source] * longest
    return load
