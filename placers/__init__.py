"""Placers: Graph x Cluster to Plan. The next placer is one new file, and a line here."""

from baechi.errors import BaechiError
from baechi.placers.base import Placer, make_plan, repriced
from baechi.placers.check import check_placer
from baechi.placers.cp import Exact
from baechi.placers.etf import Etf
from baechi.placers.fixed import Contiguous, Expert, RoundRobin, Single
from baechi.placers.heft import Heft
from baechi.placers.metis import Metis
from baechi.placers.pipeline import Pipeline
from baechi.placers.portfolio import Auto
from baechi.placers.sct import Sct
from baechi.placers.teams import Teams
from baechi.placers.topo import Topo
from baechi.placers.watch import Progress

__all__ = [
    "PLACERS",
    "Auto",
    "Contiguous",
    "Etf",
    "Exact",
    "Expert",
    "Heft",
    "Metis",
    "Pipeline",
    "Placer",
    "Progress",
    "RoundRobin",
    "Sct",
    "Single",
    "Teams",
    "Topo",
    "check_placer",
    "get_placer",
    "make_plan",
    "repriced",
]

PLACERS: dict[str, type[Placer]] = {
    placer.name: placer
    for placer in (Topo, Etf, Sct, Heft, Metis, Single, Contiguous, Teams, Pipeline, RoundRobin, Expert, Auto, Exact)
}


def get_placer(name: str, **options: object) -> Placer:
    """The placer called `name`, with its options.

    Raises:
        BaechiError: B505 when there is none, or it has no such option.

    Example:
        >>> get_placer("m-sct", threshold=0.5)
        Sct(threshold=0.5)
    """
    if name not in PLACERS:
        raise BaechiError("B505", f"no placer '{name}'", help="one of: " + ", ".join(PLACERS))
    try:
        return PLACERS[name](**options)
    except TypeError:
        raise BaechiError("B505", f"placer '{name}' has no option among: {', '.join(options)}") from None
