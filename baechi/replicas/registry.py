"""Things by name, each in a module of its own that is imported when somebody asks for it."""

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from inspect import Parameter, signature
from typing import Any

from baechi.errors import BaechiError

__all__ = ["Registry"]


class Registry(dict[str, str]):
    """Functions or classes of one kind: by name, ``module:attribute``.

    Args:
        kind: what one of them is called in errors.
        code: of the errors.
        where: by name, the module and the attribute.

    Example:
        >>> rules = Registry("rule", "B822", {"krum": "baechi.replicas.rules.krum:krum"})
        >>> list(rules), list(rules.options("krum"))
        (['krum'], ['f'])
        >>> rules.find("crumb")
        Traceback (most recent call last):
        ...
        baechi.errors.BaechiError: error[B822]: no rule 'crumb'
          help: one of: krum
    """

    def __init__(self, kind: str, code: str, where: Mapping[str, str]) -> None:
        super().__init__(where)
        self.kind, self.code = kind, code

    def find(self, name: str) -> Any:
        """The function or class called `name`.

        Raises:
            BaechiError: when there is none.
        """
        if name not in self:
            raise BaechiError(self.code, f"no {self.kind} '{name}'", help="one of: " + ", ".join(self))
        return _load(self[name])

    def options(self, name: str, given: Iterable[str] = ()) -> Mapping[str, Parameter]:
        """The options of `name`: all that a class is made with, what a function takes by keyword only.

        Raises:
            BaechiError: when there is no such name, or one of those `given` is no option of it.
        """
        self.find(name)
        known = _options_of(self[name])
        if unknown := [option for option in given if option not in known]:
            has = "it has: " + ", ".join(known) if known else "leave it out"
            raise BaechiError(self.code, f"{self.kind} '{name}' has no option {', '.join(unknown)}", help=has)
        return known

    def defaults(self, name: str) -> dict[str, Any]:
        """The options of `name` and their defaults; `inspect.Parameter.empty` where one has to be given.

        Raises:
            BaechiError: when there is none.
        """
        return {option: parameter.default for option, parameter in self.options(name).items()}

    def check(self, name: str, given: Iterable[str], hints: Mapping[str, str] | None = None) -> None:
        """See that the options given are all that `name` needs, and no others.

        Args:
            name: of the function or class.
            given: options.
            hints: what an option is, for who left it out.

        Raises:
            BaechiError: when there is no such name, it has no such option, or one is missing.
        """
        given = tuple(given)
        known = self.options(name, given)
        if missing := [k for k, p in known.items() if p.default is Parameter.empty and k not in given]:
            what = (hints or {}).get(missing[0], "see " + self[name].partition(":")[0])
            raise BaechiError(
                self.code, f"{self.kind} '{name}' needs {', '.join(missing)}", help=f"{missing[0]}: {what}"
            )


@cache
def _load(where: str) -> Any:
    module, _, attribute = where.partition(":")
    return getattr(import_module(module), attribute)


@cache
def _options_of(where: str) -> Mapping[str, Parameter]:
    found = _load(where)
    named = signature(found).parameters
    return {k: p for k, p in named.items() if isinstance(found, type) or p.kind is Parameter.KEYWORD_ONLY}
