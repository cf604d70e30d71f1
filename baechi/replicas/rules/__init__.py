"""Aggregation rules: one vector out of those of many peers, some of whom may be hostile.

The next rule is one new file, and a line here. What holds for all of them: a peer whose vector has a NaN or an
infinity is left out, and is one of the hostile peers that the rule was told to bear; the vectors are worked on in blocks
of columns, so that beside them and the result no rule holds more than some megabytes.
"""

from collections.abc import Mapping
from operator import index
from typing import TYPE_CHECKING, Any

from baechi.errors import BaechiError
from baechi.replicas.registry import Registry

if TYPE_CHECKING:
    from baechi.replicas.rules.stack import Vectors

__all__ = ["MAJORITY", "RULES", "aggregate", "rule_options"]

RULES = Registry(
    "aggregation rule",
    "B822",
    {
        "mean": "baechi.replicas.rules.mean:mean",
        "median": "baechi.replicas.rules.median:median",
        "geometric-median": "baechi.replicas.rules.geometric_median:geometric_median",
        "mean-around-median": "baechi.replicas.rules.mean_around_median:mean_around_median",
        "trimmed-mean": "baechi.replicas.rules.trimmed_mean:trimmed_mean",
        "phocas": "baechi.replicas.rules.phocas:phocas",
        "krum": "baechi.replicas.rules.krum:krum",
        "multi-krum": "baechi.replicas.rules.multi_krum:multi_krum",
        "zeno": "baechi.replicas.rules.zeno:zeno",
        "centered-clipping": "baechi.replicas.rules.centered_clipping:centered_clipping",
    },
)
"""By name, the module and the function of a rule."""

MAJORITY = frozenset({"zeno"})
"""The rules that bear a majority of hostile peers."""

_HOSTILE = "how many of the peers may be hostile"


def aggregate(rule: str, X: "Vectors", **options: Any) -> Any:
    """One vector out of those of m peers.

    Args:
        rule: one of `RULES`.
        X: (m, d), a tensor on any device or an array, of floats; or the shards of a placed model, an iterable of
            (m, d_k), each where it is. An iterable is read twice, an iterator first put into a list.
        options: `f`, or `b` in the papers of the trimmed family: how many peers may be hostile. The rules that
            have to know need it; for the others it is only checked. More as the rule's function says.

    Returns:
        (d,), as X: a tensor on its device or an array, of its type, integers as float64; a list of shards for shards.

    Raises:
        BaechiError: B822 when there is no such rule, it has no such option, or an option is out of its range;
            B823 when there are no vectors, they do not fit together, or none is finite.

    Example:
        >>> import numpy as np
        >>> X = np.array([[1.0, 2.0], [1.2, 1.9], [np.nan, 0.0], [0.9, 2.2], [99.0, -99.0]])
        >>> aggregate("trimmed-mean", X, b=2)
        array([1.1 , 1.95])
    """
    from baechi.replicas.rules.stack import Stack

    function = RULES.find(rule)
    stack = Stack(X)
    return stack.returned(function(stack, **_options(rule, stack.peers, options)))


def rule_options(rule: str) -> Mapping[str, Any]:
    """The options of a rule and their defaults; `inspect.Parameter.empty` for what has to be given.

    Raises:
        BaechiError: B822 when there is no such rule.

    Example:
        >>> sorted(rule_options("multi-krum"))
        ['f', 'm']
    """
    return RULES.defaults(rule)


def _options(rule: str, peers: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the rule's function takes: synonyms resolved, nothing unknown, nothing left out, counts in their range."""
    takes, options = rule_options(rule), dict(given)
    if "f" in options and "b" in options:
        raise BaechiError("B822", f"rule '{rule}': f and b are the same, and both are given", help="give one")
    if "k" in options and "m" in takes and "m" not in options:
        options["m"] = options.pop("k")
    called = next((name for name in ("f", "b") if name in options), None)
    if called is not None:
        hostile = _hostile(rule, peers, options.pop(called))
        options |= {name: hostile for name in ("f", "b") if name in takes}
    RULES.check(rule, options, {"f": _HOSTILE, "b": _HOSTILE})
    return options


def _hostile(rule: str, peers: int, count: Any) -> int:
    """The assumed number of hostile peers, when the rule can bear so many."""
    try:
        hostile = index(count)
    except TypeError:
        raise BaechiError("B822", f"rule '{rule}': {count!r} hostile peers", help="give a whole number") from None
    most = peers - 1 if rule in MAJORITY or not rule_options(rule).keys() & {"f", "b"} else (peers - 1) // 2
    if not 0 <= hostile <= most:
        raise BaechiError("B822", f"rule '{rule}': {hostile} hostile of {peers} peers", help=f"give 0 to {most}")
    return hostile
