"""What to tell a person who chooses an aggregation rule: what it does not bear."""

from math import isinf

from baechi.replicas.attacks.breaks import CONDITIONS, breaking_ratio
from baechi.replicas.rules import MAJORITY, rule_options

__all__ = ["WORRYING_RATIO", "weaknesses"]

WORRYING_RATIO = 0.5
"""Gradients of small batches have means of about half their deviations: what breaks a rule only below is not said."""

_EPSILONS = (0.1, 1.0, 10.0)


def weaknesses(rule: str, m: int, *, f: int, q: int | None = None) -> list[str]:
    """Why a rule may fail, each in one sentence.

    Args:
        rule: one of `RULES`.
        m: peers, the hostile ones among them.
        f: hostile peers that the rule is told to bear, b of the trimmed family.
        q: hostile peers that there are; as many as it is told when None.

    Example:
        >>> weaknesses("trimmed-mean", 20, f=2, q=3)
        ['trimmed-mean is told to bear 2 hostile peers, and there are 3']
    """
    said, hostile = [], f if q is None else q
    told = bool(rule_options(rule).keys() & {"f", "b"})
    if told and hostile > f:
        said.append(f"{rule} is told to bear {f} hostile peers, and there are {hostile}")
    if 2 * hostile >= m and rule not in MAJORITY:
        most = ", ".join(sorted(MAJORITY))
        return [*said, f"{rule} does not bear {hostile} hostile of {m} peers; what bears half of them or more: {most}"]
    if rule in ("krum", "multi-krum") and m < 2 * f + 3:
        said.append(f"{rule} is proved for {2 * f + 3} peers or more when {f} are hostile, and there are {m}")
    if rule in CONDITIONS and hostile and not (told and hostile > f):
        said += _manipulation(rule, m, hostile, f if told else None)
    return said


def _manipulation(rule: str, m: int, q: int, f: int | None) -> list[str]:
    ratio, epsilon = max((breaking_ratio(rule, m, q, epsilon=epsilon, f=f), -epsilon) for epsilon in _EPSILONS)
    if ratio < WORRYING_RATIO:
        return []
    when = "" if isinf(ratio) else f" while the honest mean is below {ratio:.2f} of its standard deviation"
    return [f"{rule} with {q} hostile of {m} peers breaks by inner-product manipulation of epsilon {-epsilon:g}{when}"]
