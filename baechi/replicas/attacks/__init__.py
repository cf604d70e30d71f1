"""Attacks on the aggregation of many peers' vectors, to test a rule with.

The next attack is one new file, and a line here. An attacker knows what the honest peers send.
"""

from collections.abc import Mapping
from operator import index
from typing import TYPE_CHECKING, Any

from baechi.errors import BaechiError
from baechi.replicas.registry import Registry

if TYPE_CHECKING:
    from baechi.replicas.rules.stack import Vectors

__all__ = ["ATTACKS", "attack", "attack_options"]

ATTACKS = Registry(
    "attack",
    "B824",
    {
        "ipm": "baechi.replicas.attacks.ipm:inner_product_manipulation",
        "gaussian": "baechi.replicas.attacks.gaussian:gaussian",
        "bit-flip": "baechi.replicas.attacks.bit_flip:bit_flip",
        "sign-flip": "baechi.replicas.attacks.sign_flip:sign_flip",
        "label-flip": "baechi.replicas.attacks.label_flip:label_flip",
        "gambler": "baechi.replicas.attacks.gambler:gambler",
        "omniscient": "baechi.replicas.attacks.omniscient:omniscient",
        "a-little-is-enough": "baechi.replicas.attacks.a_little_is_enough:a_little_is_enough",
    },
)
"""By name, the module and the function of an attack."""


def attack(name: str, X_honest: "Vectors", q: int, **options: Any) -> Any:
    """What q hostile peers send.

    Args:
        name: one of `ATTACKS`.
        X_honest: (m - q, d), what the others send: a tensor, an array, or shards (m - q, d_k), as `aggregate` takes.
        q: how many are hostile.
        options: as the attack's function says; of those that spoil a peer's own vector, `own`, (q, d) as X_honest:
            without, it is a copy of one of the honest.

    Returns:
        (q, d) as X_honest: a tensor or an array, or a list of shards.

    Raises:
        BaechiError: B824 when there is no such attack, it has no such option, or an option is out of its range;
            B823 as `aggregate`.

    Example:
        >>> import numpy as np
        >>> attack("ipm", np.array([[1.0, 2.0], [3.0, 4.0]]), 1, epsilon=0.5)
        array([[-1. , -1.5]])
    """
    from baechi.replicas.rules.stack import Stack

    function = ATTACKS.find(name)
    try:
        hostile = index(q)
    except TypeError:
        hostile = -1
    if hostile < 0:
        raise BaechiError("B824", f"attack '{name}' by {q!r} peers", help="give a whole number of 0 up")
    ATTACKS.check(name, options)
    stack = Stack(X_honest)
    return stack.returned(function(stack, hostile, **options))


def attack_options(name: str) -> Mapping[str, Any]:
    """The options of an attack and their defaults; `inspect.Parameter.empty` for what has to be given.

    Raises:
        BaechiError: B824 when there is no such attack.

    Example:
        >>> attack_options("ipm")
        {'epsilon': 0.1}
    """
    return ATTACKS.defaults(name)
