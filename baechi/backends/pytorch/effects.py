"""What an ATen call does to its arguments, by its schema."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = ["changed_by", "fills", "gives_plain", "gives_views"]

aten = torch.ops.aten
_DRAWS = "uniform_ normal_ random_ exponential_ geometric_ cauchy_ log_normal_ rand_like randn_like randint_like"
_FILLS = {*_DRAWS.split(), "zero_", "fill_", "copy_"}


def gives_views(func: Any) -> bool:
    """Whether a call does nothing but look at a storage in another way."""
    if func.namespace != "aten":
        return False
    if func.overloadpacket is aten.set_:
        return True
    results = [r.alias_info for r in func._schema.returns]
    return bool(results) and all(a is not None and not a.is_write for a in results)


def gives_plain(func: Any) -> bool:
    """Whether a call gives something else than tensors."""
    return any("Tensor" not in str(r.type) for r in func._schema.returns)


def fills(func: Any) -> bool:
    """Whether what a call gives does not depend on what its first argument held."""
    name = func.overloadpacket.__name__
    return func.namespace == "aten" and (name in _FILLS or func is aten.bernoulli_.float)


def changed_by(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The arguments that a call changes."""
    found: list[Tensor] = []
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[i] if i < len(args) else kwargs.get(argument.name)
            found += [t for t in pytree.tree_leaves(value) if isinstance(t, Tensor)]
    return found
