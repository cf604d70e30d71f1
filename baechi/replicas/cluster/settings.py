"""The options of a run from flags and a TOML file."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from baechi.document import load_options
from baechi.errors import BaechiError
from baechi.replicas.cluster.hub import HubOptions
from baechi.replicas.cluster.run import RunOptions
from baechi.replicas.draco_options import DracoOptions
from baechi.replicas.gossip import GossipOptions

__all__ = ["is_crew", "run_options"]

_HUB = {"replicas": "count", "devices": "shares", "topology": "topology", "capacity": "capacity", "seed": "seed"}
_DEFAULT_REPLICAS = 2


def is_crew(path: str | None, flags: Mapping[str, Any]) -> bool:
    """Whether options are those of a run of clusters: the algorithm is ravnest, or there are peers.

    Example:
        >>> is_crew(None, {"peers": "peers.toml"}), is_crew(None, {"replicas": 4})
        (True, False)
    """
    given = {**load_options(path, "B801"), **flags}
    return given.get("algorithm") == "ravnest" or "peers" in given


def run_options(path: str | None = None, flags: Mapping[str, Any] | None = None) -> RunOptions:
    """Read the options of a run.

    Args:
        path: of a TOML file with options by their flags' names, with dashes or without.
        flags: over those of the file. What is no option of a run or of gossip is one of the aggregation rule.

    Raises:
        BaechiError: B110 when there is no such file, B801 on what makes no sense, B822 on a rule that cannot work.

    Example:
        >>> options = run_options(flags={"replicas": 4, "mixing": "pull", "rule": "krum", "f": 1})
        >>> options.hub.count, options.hub.gossip.rule_options
        (4, {'f': 1})
    """
    given = {**load_options(path, "B801"), **(flags or {})}
    hub = {name: given.pop(flag) for flag, name in _HUB.items() if flag in given}
    run = {f.name: given.pop(f.name) for f in fields(RunOptions) if f.name in given}
    algorithm = given.pop("algorithm", "gossip")
    if algorithm == "draco":
        hub["draco"] = DracoOptions(**{f.name: given.pop(f.name) for f in fields(DracoOptions) if f.name in given})
    elif algorithm != "gossip":
        raise BaechiError("B801", f"there is no algorithm '{algorithm}'", help="gossip or draco")
    gossip = {f.name: given.pop(f.name) for f in fields(GossipOptions) if f.name in given}
    hub.setdefault("count", _DEFAULT_REPLICAS)
    _check(hub)
    if run.get("method"):
        hub, run = _of_method(hub, run, gossip, given)
    elif given and not gossip.get("rule"):
        raise _unknown(next(iter(given)))
    rule_options = {**gossip.pop("rule_options", {}), **given} if gossip.get("rule") else {}
    try:
        options = RunOptions(HubOptions(**hub, gossip=GossipOptions(**gossip, rule_options=rule_options)), **run)
    except TypeError as error:
        raise BaechiError("B801", f"an option has a value of the wrong type: {error}") from None
    _check_rule(options.hub)
    return options


def _check_rule(hub: HubOptions) -> None:
    """Refuse a rule that could never take effect, though all voted: a peer only ever waits for more of them.

    Raises:
        BaechiError: B822.
    """
    if hub.gossip.rule is None:
        return
    from baechi.replicas.rules import aggregate

    voters = min(hub.count, hub.gossip.newest + 1)
    aggregate(hub.gossip.rule, np.ones((voters, 1)), **hub.gossip.rule_options)


def _of_method(
    hub: dict[str, Any], run: dict[str, Any], gossip: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of a run by a method, which does not gossip; without a server none can go on without all others."""
    from baechi.replicas.cluster.rounds import has_server

    extra = [*gossip, *(name for name in ("capacity", "topology", "resume") if name in {**hub, **run})]
    if extra or hub.get("shares", 1) > 1:
        what = f"method '{run['method']}' does not gossip, so it has no {(extra or ['gangs'])[0]}"
        raise BaechiError("B801", what, help="leave it out")
    alone = {} if has_server(run["method"], given) else {"restarts": 0}
    return {**hub, "capacity": 0.0}, {**run, "method_options": dict(given), **alone}


def _unknown(name: str) -> BaechiError:
    known = {*_HUB, *(f.name for kind in (RunOptions, GossipOptions) for f in fields(kind))}
    known -= {"hub", "gossip", "method_options", "rule_options"}
    return BaechiError("B801", f"replicas have no option '{name}'", help="one of: " + ", ".join(sorted(known)))


def _check(hub: Mapping[str, Any]) -> None:
    for name, least in (("count", 1), ("shares", 1), ("capacity", 0)):
        value = hub.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < least:
            raise BaechiError("B801", f"{name} is {value!r}", help=f"a number from {least} on")
    if hub.get("topology", "complete") != "complete" and hub["count"] > 1:
        from baechi.replicas.topology import parse_topology

        parse_topology(hub["topology"], hub["count"])
