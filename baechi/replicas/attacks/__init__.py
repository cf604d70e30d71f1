"""Attacks on the aggregation of many peers' vectors, to test a rule with.

The next attack is one new file, and a line here. An attacker knows what the honest peers send.
"""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from inspect import Parameter, signature
from operator import index
from typing import TYPE_CHECKING, Any

from baechi.errors import BaechiError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from baechi.replicas.rules.stack import Vectors

__all__ = ["ATTACKS", "attack", "attack_options"]

ATTACKS: Mapping[str, str] = {
    "ipm": "baechi.replicas.attacks.ipm:inner_product_manipulation",
    "gaussian": "baechi.replicas.attacks.gaussian:gaussian",
    "bit-flip": "baechi.replicas.attacks.bit_flip:bit_flip",
    "sign-flip": "baechi.replicas.attacks.sign_flip:sign_flip",
    "label-flip": "baechi.replicas.attacks.label_flip:label_flip",
    "gambler": "baechi.replicas.attacks.gambler:gambler",
    "omniscient": "baechi.replicas.attacks.omniscient:omniscient",
    "a-little-is-enough": "baechi.replicas.attacks.a_little_is_enough:a_little_is_enough",
}
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

    function, takes = _function(name), attack_options(name)
    try:
        hostile = index(q)
    except TypeError:
        hostile = -1
    if hostile < 0:
        raise BaechiError("B824", f"attack '{name}' by {q!r} peers", help="give a whole number of 0 up")
    if unknown := [option for option in options if option not in takes]:
        has = ", ".join(takes) or "none"
        raise BaechiError("B824", f"attack '{name}' has no option {', '.join(unknown)}", help=f"it has: {has}")
    if missing := [o for o, value in takes.items() if value is Parameter.empty and o not in options]:
        raise BaechiError("B824", f"attack '{name}' needs {', '.join(missing)}", help=f"see {function.__module__}")
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
    named = signature(_function(name)).parameters.values()
    return {each.name: each.default for each in named if each.kind is Parameter.KEYWORD_ONLY}


@cache
def _function(name: str) -> "Callable[..., list[Tensor]]":
    if name not in ATTACKS:
        raise BaechiError("B824", f"no attack '{name}'", help="one of: " + ", ".join(ATTACKS))
    module, _, function = ATTACKS[name].partition(":")
    found: Callable[..., list[Tensor]] = getattr(import_module(module), function)
    return found
