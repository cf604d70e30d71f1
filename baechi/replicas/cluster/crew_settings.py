"""The options of a run of clusters from flags and a TOML file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from baechi.document import load_options, nearest
from baechi.errors import BaechiError
from baechi.placers import get_placer
from baechi.replicas.cluster.crew_session import CrewSession
from baechi.replicas.ravnest.nodes import read_nodes

__all__ = ["CrewOptions", "crew_options"]

_COUNTS = ("clusters", "under_way", "average_every", "checkpoint_every")
_NAMES = ("peers", "placer", "average_optimizer", "seed", "address", "checkpoint", "resume", *_COUNTS)
_KINDS = {"average_optimizer": bool, "resume": bool, "placer": str, "address": str, "checkpoint": str}


class CrewOptions(NamedTuple):
    """Of a run of clusters: what each peer is told, and the Ray cluster, None for one on this machine."""

    session: CrewSession
    address: str | None


def crew_options(path: str | None = None, flags: Mapping[str, Any] | None = None) -> CrewOptions:
    """Read the options of a run of clusters.

    Args:
        path: of a TOML file with options by their flags' names; the path of ``peers`` in it counts from there.
        flags: over those of the file.

    Raises:
        BaechiError: B110 when there is no such file, B505 on an unknown placer, B801 on what makes no sense, B854 on bad
            peers.
    """
    kept = load_options(path, "B801")
    if path is not None and isinstance(kept.get("peers"), str):
        kept["peers"] = str(Path(path).parent / kept["peers"])
    given = {**kept, **(flags or {})}
    if given.pop("algorithm", "ravnest") != "ravnest":
        raise BaechiError("B801", "only ravnest has clusters of peers", help="leave --peers or --algorithm out")
    for name in given:
        if name not in _NAMES:
            help_ = nearest(name, _NAMES, "one of: ")
            raise BaechiError("B801", f"clusters of peers have no option '{name}'", help=help_)
    if not isinstance(given.get("peers"), str):
        raise BaechiError("B801", "ravnest needs to know its peers", help="give --peers FILE.toml")
    for name in (*_COUNTS, "seed"):
        value = given.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < (name != "seed"):
            raise BaechiError("B801", f"{name} is {value!r}", help="a whole number, from 1 on")
    for name, kind in _KINDS.items():
        if name in given and not isinstance(given[name], kind):
            raise BaechiError("B801", f"{name} is {given[name]!r}", help=f"a {kind.__name__}")
    if given.get("resume") and not given.get("checkpoint"):
        raise BaechiError("B801", "there is nothing to resume from", help="give --checkpoint DIR")
    if given.get("checkpoint"):
        given["checkpoint"] = str(Path(given["checkpoint"]).resolve())
    get_placer(given.get("placer", "contiguous"))
    nodes, address = read_nodes(given.pop("peers")), given.pop("address", None)
    return CrewOptions(CrewSession(nodes=nodes, **given), address)
