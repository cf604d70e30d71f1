"""JSON and TOML documents whose errors name the file and the element, as in ``$.order.cuda:0[3]``."""

import difflib
import json
import math
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from baechi.errors import BaechiError

__all__ = ["Entry", "Source", "build", "load_json", "load_options", "load_toml", "nearest", "optional", "read_text"]

T = TypeVar("T")


class Source(NamedTuple):
    """Where a document comes from and the code of the errors in it."""

    name: str
    code: str


class Entry(NamedTuple):
    """A value of a document that knows its place.

    Example:
        >>> order = Entry({"cuda:0": ["a", 7]}, Source("plan.json", "B405")).at("cuda:0")
        >>> [op.text() for op in order.items()]
        Traceback (most recent call last):
        ...
        baechi.errors.BaechiError: error[B405]: plan.json: $.cuda:0[1]: expected a string, found 7
    """

    value: Any
    source: Source
    parent: "Entry | None" = None
    key: str | int = ""

    @property
    def path(self) -> str:
        """The place in the document, such as ``$.order.cuda:0[3]``."""
        if self.parent is None:
            return "$"
        step = f"[{self.key}]" if isinstance(self.key, int) else f".{self.key}"
        return self.parent.path + step

    def error(self, what: str, *, help: str = "", code: str = "") -> BaechiError:
        """An error at this place."""
        return BaechiError(code or self.source.code, f"{self.source.name}: {self.path}: {what}", help=help)

    def expected(self, what: str) -> BaechiError:
        """An error that says what should stand here."""
        shown = json.dumps(self.value, default=str)
        return self.error(f"expected {what}, found {shown if len(shown) <= 40 else shown[:37] + '…'}")

    def table(self) -> dict[str, Any]:
        """The value as an object."""
        if not isinstance(self.value, dict):
            raise self.expected("an object")
        return self.value

    def at(self, key: str) -> "Entry":
        """The entry of an object.

        Raises:
            BaechiError: when it is missing.
        """
        table = self.table()
        if key not in table:
            raise self.error(f"'{key}' is missing")
        return Entry(table[key], self.source, self, key)

    def find(self, key: str) -> "Entry | None":
        """The entry of an object, or None when it is missing or null."""
        value = self.table().get(key)
        return None if value is None else Entry(value, self.source, self, key)

    def items(self, length: int | None = None) -> "list[Entry]":
        """The elements of an array, of a given length when there is one."""
        if not isinstance(self.value, list):
            raise self.expected("an array")
        if length is not None and len(self.value) != length:
            raise self.expected(f"{length} elements")
        return [Entry(value, self.source, self, i) for i, value in enumerate(self.value)]

    def entries(self) -> "Iterator[tuple[str, Entry]]":
        """Keys and entries of an object."""
        for key, value in self.table().items():
            yield key, Entry(value, self.source, self, key)

    def text(self) -> str:
        """The value as a string."""
        if not isinstance(self.value, str):
            raise self.expected("a string")
        return self.value

    def flag(self) -> bool:
        """The value as true or false."""
        if not isinstance(self.value, bool):
            raise self.expected("true or false")
        return self.value

    def integer(self) -> int:
        """The value as a whole number."""
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            raise self.expected("a whole number")
        return self.value

    def number(self) -> float:
        """The value as a finite number.

        Raises:
            BaechiError: B206 when it is NaN or infinite.
        """
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise self.expected("a number")
        if not math.isfinite(self.value):
            raise _not_finite(self)
        return self.value

    def only(self, known: Collection[str]) -> None:
        """Check that an object has no entry besides the known ones."""
        for key in self.table():
            if key not in known:
                raise self.error(f"unknown entry '{key}'", help=nearest(key, sorted(known), "entries: "))


def nearest(name: str, known: Iterable[str], otherwise: str) -> str:
    """A help line: the closest known name, or all of them behind `otherwise`.

    Example:
        >>> nearest("memry", ["memory", "type"], "entries: ")
        "did you mean 'memory'?"
    """
    names = list(known)
    close = difflib.get_close_matches(name, names, n=2, cutoff=0.6)
    return "did you mean " + " or ".join(f"'{c}'" for c in close) + "?" if close else otherwise + ", ".join(names)


_AS_IT_IS: dict[object, frozenset[type]] = {
    Entry.text: frozenset((str,)),
    Entry.flag: frozenset((bool,)),
    Entry.integer: frozenset((int,)),
    Entry.number: frozenset((int, float)),
}
"""Of a reader, the types of values that it returns as they are, floats if finite: of a million entries no `Entry` is made."""


def optional(reader: Callable[[Entry], T]) -> Callable[[Entry], T | None]:
    """A reader that takes null too."""

    def read(entry: Entry) -> T | None:
        return None if entry.value is None else reader(entry)

    _AS_IT_IS[read] = _AS_IT_IS.get(reader, frozenset()) | {type(None)}
    return read


def build(cls: type[T], entry: Entry, readers: Mapping[str, Callable[[Entry], Any]]) -> T:
    """Make a dataclass from an object, each of whose entries has a reader.

    Raises:
        BaechiError: when an entry is unknown, missing or malformed.
    """
    table, values = entry.table(), {}
    if not table.keys() <= readers.keys():
        entry.only(readers)
    for name in _required(cls):  # type: ignore[arg-type] # mypy takes no class for hashable
        if name not in table:
            entry.at(name)
    for key, value in table.items():
        reader, kind = readers[key], type(value)
        known = kind in _AS_IT_IS.get(reader, ()) and (kind is not float or math.isfinite(value))
        values[key] = value if known else reader(Entry(value, entry.source, entry, key))
    return cls(**values)


@cache
def _required(cls: Any) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING)


def load_json(path: str | Path, code: str, *, missing: str, malformed: str) -> Entry:
    """Read a JSON file.

    Args:
        path: the file.
        code: of the errors in its content.
        missing: code of the error when it cannot be read.
        malformed: code of the error when it is no JSON.

    Raises:
        BaechiError: as said; B206 when a number in it is NaN or infinite.
    """
    text = read_text(path, missing)
    constants: list[str] = []

    def constant(name: str) -> float:
        constants.append(name)
        return float(name)

    try:
        value = json.loads(text, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise BaechiError(
            malformed,
            f"{path} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            help="the file may be truncated; write it again" if error.pos >= len(text.rstrip()) else "",
        ) from None
    except RecursionError:
        raise BaechiError(malformed, f"{path} is not JSON that can be read: it is nested too deeply") from None
    root = Entry(value, Source(str(path), code))
    if constants:
        _reject_constants(root)
    return root


def load_toml(path: str | Path, code: str, *, missing: str, malformed: str) -> Entry:
    """Read a TOML file; arguments and errors as `load_json`."""
    try:
        return Entry(tomllib.loads(read_text(path, missing)), Source(str(path), code))
    except tomllib.TOMLDecodeError as error:
        raise BaechiError(malformed, f"{path} is not TOML: {error}") from None


def load_options(path: str | Path | None, code: str) -> dict[str, Any]:
    """Options in a TOML file by their names, dashes as underscores; none without a path.

    Raises:
        BaechiError: B110 when it cannot be read, `code` when it is no TOML.
    """
    if path is None:
        return {}
    table = load_toml(path, code, missing="B110", malformed=code).table()
    return {name.replace("-", "_"): value for name, value in table.items()}


def read_text(path: str | Path, missing: str) -> str:
    """The content of a text file.

    Raises:
        BaechiError: of code `missing` when it cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise BaechiError(missing, f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise BaechiError(missing, f"cannot read {path}: it is not text") from None


def _reject_constants(entry: Entry) -> None:
    if isinstance(entry.value, float) and not math.isfinite(entry.value):
        raise _not_finite(entry)
    if isinstance(entry.value, list):
        for element in entry.items():
            _reject_constants(element)
    if isinstance(entry.value, dict):
        for _, child in entry.entries():
            _reject_constants(child)


def _not_finite(entry: Entry) -> BaechiError:
    return entry.error(f"{entry.value} is no number", code="B206", help="a cost is a finite number of at least 0")
