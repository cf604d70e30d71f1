"""Synchronous, local and federated methods by name; each is its options, and reads like its paper.

The next method is one new file, and a line here.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from baechi.errors import BaechiError
from baechi.replicas.registry import Registry

if TYPE_CHECKING:
    from baechi.replicas.methods.descent import Descent

__all__ = ["METHODS", "method", "option_from_text"]

METHODS = Registry(
    "method",
    "B831",
    {
        "sync-sgd": "baechi.replicas.methods.sync_sgd:SyncSgd",
        "local-sgd": "baechi.replicas.methods.local_sgd:LocalSgd",
        "cser": "baechi.replicas.methods.cser:Cser",
        "ef-sgd": "baechi.replicas.methods.ef_sgd:EfSgd",
        "qsparse-local-sgd": "baechi.replicas.methods.qsparse_local_sgd:QsparseLocalSgd",
        "adagrad": "baechi.replicas.methods.adagrad:AdaGrad",
        "adaalter": "baechi.replicas.methods.adaalter:AdaAlter",
        "local-adaalter": "baechi.replicas.methods.local_adaalter:LocalAdaAlter",
        "savic": "baechi.replicas.methods.savic:Savic",
        "fedavg": "baechi.replicas.methods.fedavg:FedAvg",
        "slsgd": "baechi.replicas.methods.slsgd:Slsgd",
        "fedasync": "baechi.replicas.methods.fedasync:FedAsync",
        "fedpbc": "baechi.replicas.methods.fedpbc:FedPbc",
        "choco": "baechi.replicas.methods.choco:Choco",
        "adagossip": "baechi.replicas.methods.adagossip:AdaGossip",
    },
)
"""By name, the module and the class of a method."""


def method(name: str, **options: Any) -> "Descent":
    """The method called `name`.

    Args:
        name: one of `METHODS`.
        options: fields of its class.

    Raises:
        BaechiError: B831 when there is none, it has no such option, or an option is out of its range.

    Example:
        >>> method("local-sgd", h=8).h
        8
    """
    METHODS.check(name, options)
    made: Descent = METHODS.find(name)(**options)
    return made


def option_from_text(name: str, option: str, text: str) -> Any:
    """The value of a method's option as a person writes it.

    Args:
        name: of the method.
        option: of it.
        text: a number, `yes` or `no`, a word, or several numbers with commas between.

    Raises:
        BaechiError: B831 when there is no such option, or the text is none of its values.

    Example:
        >>> option_from_text("cser", "milestones", "60,120")
        (60, 120)
    """
    kind = METHODS.options(name, (option,))[option].annotation
    try:
        return _READERS[kind](text)
    except (KeyError, ValueError):
        what = f"'{text}' is no {getattr(kind, '__name__', kind)}"
        raise BaechiError("B831", f"{name}.{option}: {what}") from None


_READERS: Mapping[Any, Any] = {
    int: int,
    float: float,
    str: str,
    bool: {"yes": True, "no": False}.__getitem__,
    tuple[int, ...]: lambda text: tuple(int(part) for part in text.split(",")),
    tuple[float, ...]: lambda text: tuple(float(part) for part in text.split(",")),
}
"""By an option's type, how a person's text becomes one."""
