"""Real devices by name, with the figures of their data sheets."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from baechi.document import load_toml, nearest
from baechi.errors import BaechiError
from baechi.ir.cluster import Link
from baechi.units import parse_bytes

__all__ = ["Preset", "find_preset", "presets"]


@dataclass(frozen=True, slots=True)
class Preset:
    """A real device, from its public data sheet.

    Attributes:
        name: what a cluster calls it, such as ``rtx2080``.
        title: its maker's name for it.
        memory_bytes: its memory.
        backend: ``cpu`` or ``cuda``.
        flops_per_second: peak rate by kind of arithmetic.
        bytes_per_second: bandwidth of its memory.
        launch_seconds: overhead of starting one op.
        efficiency: the share of the peak rate that a large kernel reaches.
        link: how it is joined to others.
        board: a computer of its own, rather than a card in one.
        host_bytes_per_second: of its link to the memory of its machine; 0 for a board, whose memory that is.
    """

    name: str
    title: str
    memory_bytes: int
    backend: str
    flops_per_second: Mapping[str, float]
    bytes_per_second: float
    launch_seconds: float
    efficiency: float
    link: Link
    board: bool = False
    host_bytes_per_second: float = 0.0


@cache
def presets() -> dict[str, Preset]:
    """The devices of ``devices.toml`` by name.

    Example:
        >>> presets()["rtx2080"].memory_bytes == 8 * 2**30
        True
    """
    data = load_toml(Path(__file__).with_name("devices.toml"), "B305", missing="B305", malformed="B305").table()
    links = {name: Link(**link) for name, link in data["link"].items()}
    return {name: _preset(name, entry, links) for name, entry in data["device"].items()}


def _preset(name: str, entry: Mapping[str, Any], links: Mapping[str, Link]) -> Preset:
    rest = {key: value for key, value in entry.items() if key not in ("memory", "link")}
    if not entry.get("board"):
        rest.setdefault("host_bytes_per_second", links[entry["link"]].bytes_per_second)
    return Preset(name=name, memory_bytes=parse_bytes(entry["memory"]), link=links[entry["link"]], **rest)


def find_preset(name: str) -> Preset:
    """The device of that name; case, ``-``, ``_`` and spaces do not matter.

    Raises:
        BaechiError: B307 when there is none.

    Example:
        >>> find_preset("RTX 2080").name
        'rtx2080'
    """
    known = {_squeeze(preset): preset for preset in presets()}
    if _squeeze(name) not in known:
        raise BaechiError("B307", f"no device is called '{name}'", help=nearest(name.lower(), presets(), "one of: "))
    return presets()[known[_squeeze(name)]]


def _squeeze(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()
