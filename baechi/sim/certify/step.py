"""The best time that can be refuted, by trying times between what is proved and what is not."""

from baechi.sim.certify.net import Net, core_of
from baechi.sim.certify.refute import refutes, widest
from baechi.sim.certify.windows import Windows, fresh

__all__ = ["refuted_ticks"]

_MOST_PAIRS = 1500  # ops of which any two are looked at
_SELECTED = 64  # ops of a device of which any two are looked at in a larger graph
_STARTS = 64  # intervals whose work is counted begin at so many instants
_VISITS = 1_000_000  # ops that all tries look at, in graphs where only neighbours are looked at
_SHARE = 2048  # the search ends at this share of the time
_ALWAYS = 1 << 62


def refuted_ticks(net: Net, devices: int, proved: int) -> int:
    """Ticks below which no plan can be, at least `proved`.

    Neighbours are looked at first, in about linear time: in larger graphs fewer times are tried,
    and beyond a million ops none. In graphs of up to 1,500 ops that take time, any two ops are looked at
    then, in O(ops x edges) time for each try.

    Args:
        net: the step.
        devices: their number.
        proved: a lower bound.
    """
    n = max(1, len(net.p))
    w = fresh(net, False)
    bound = max(proved, widest(net, w))
    bound = _search(net, w, devices, bound, _SELECTED, min(_STARTS, _VISITS // n), _VISITS // n)
    core = core_of(net) if n <= 2 * _MOST_PAIRS else net
    if len(core.p) > _MOST_PAIRS:
        return bound
    return _search(core, fresh(core, True), devices, bound, _MOST_PAIRS, _STARTS, _VISITS)


def _search(net: Net, w: Windows, devices: int, proved: int, selected: int, starts: int, tries: int) -> int:
    """Try times ever farther above the bound, then between the last refuted and the first not refuted.

    What holds within one time holds within any shorter one, so a try goes on from the last that failed.
    """
    bound, step, over = proved, max(1, proved // 256), False
    while tries > 0 and max(1, bound // _SHARE) <= step < _ALWAYS:
        tries -= 1
        tried = w.copy()
        if refutes(net, tried, bound + step - 1, devices, selected, starts):
            bound += step
            step = step // 2 if over else step * 2
        else:
            w, over = tried, True
            step //= 2
    return min(bound, _ALWAYS)
