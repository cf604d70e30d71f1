"""The options of `baechi replicas simulate`: as flags, and in a file."""

import argparse
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from baechi.cli.arguments import positive, whole
from baechi.document import load_options, nearest
from baechi.errors import BaechiError

__all__ = ["declare", "is_draco", "is_general", "options"]


class _Flag(NamedTuple):
    """A flag that may also stand in the file."""

    name: str
    read: Callable[[str], Any]
    metavar: str
    help: str
    default: Any = None
    many: bool = False


_SIZES: tuple[_Flag, ...] = (
    _Flag("peers", positive, "N", "how many (default 128)", 128),
    _Flag(
        "topology",
        str,
        "NAME",
        "complete, ring, torus, exponential, one-peer-exponential, random-regular:4",
        "complete",
    ),
    _Flag("mixing", str, "HOW", "pull (default here), symmetric or push-sum", "pull"),
    _Flag("capacity", str, "RATE", "exchanges a second that a peer begins, or log: ln n (default 1)", "1"),
    _Flag("update-rate", float, "MU", "updates a second (default 1)", 1.0),
    _Flag("compute-offset", float, "C", "fixed seconds of an update, before the random ones (default 0)", 0.0),
    _Flag("time", float, "SECONDS", "simulated (default 200)"),
    _Flag("rounds", float, "R", "instead: how often a peer gossips on average"),
    _Flag("seed", whole, "N", "of everything random (default 0)", 0),
    _Flag("sources", positive, "K", "peers whose updates are tracked (all to 4096 peers, else 64)"),
    _Flag("dimension", whole, "D", "values of each peer, mixed but not trained; of the model, if trained"),
)
_GENERAL: tuple[_Flag, ...] = (
    _Flag("algorithm", str, "NAME", "gossip or draco"),
    _Flag("compute-time", str, "DIST", "of an update: 0.5+exp:1, erlang:4:1, lognormal:1:0.5, hist:1=3,2=1"),
    _Flag("mixing-time", str, "DIST", "from one exchange to the next, instead of --capacity"),
    _Flag("burst", float, "N", "a token bucket of this depth limits each peer to its capacity"),
    _Flag("delay", str, "DIST", "of each message"),
    _Flag("bandwidth", str, "DIST", "of links, in bytes a second"),
    _Flag("drop", float, "P", "chance that a message is lost"),
    _Flag("timeout", float, "SECONDS", "after which an answer counts as lost (default 10)"),
    _Flag("straggler", str, "PEER=FACTOR", "a slow peer; may be repeated", many=True),
    _Flag("churn", str, "WHAT:PEER@T", "crash, restart, leave or join; may be repeated", many=True),
    _Flag("partition", str, "A-B:0,1|2,3", "groups apart from A to B seconds; may be repeated", many=True),
    _Flag("skew", float, "S", "how far the peers' data differ (default 1)"),
    _Flag("eta", float, "STEP", "step size (default 0.05)"),
    _Flag("local-steps", positive, "K", "steps of an update (default 1)"),
    _Flag("every", float, "SECONDS", "between samples and checkpoints (default a 40th)"),
    _Flag("checkpoint", str, "FILE", "keep the whole state there"),
)
_DRACO: tuple[_Flag, ...] = (
    _Flag("exchange", str, "WHAT", "update, model or push-sum"),
    _Flag("own-weight", float, "Q", "what a peer's own update counts (default 1)"),
    _Flag("max-delay", float, "GAMMA", "seconds after which a message is dropped"),
    _Flag("max-received", whole, "PSI", "messages let in for each period"),
    _Flag("period", float, "P", "seconds of cap and unification (default 10)"),
)
_SWITCHES = {"opportunistic": "holders of the newest update share all capacity", "train": "train the regression"}


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--config", metavar="FILE.toml", help="these options, by their long names; flags win")
    _add(parser.add_argument_group("the peers"), _SIZES)
    general = parser.add_argument_group("links, faults, training (the general simulator)")
    _add(general, _GENERAL)
    general.add_argument("--resume", action="store_true", default=None, help="go on from --checkpoint, if it is there")
    for name, help in _SWITCHES.items():
        parser.add_argument(f"--{name}", action="store_true", default=None, help=help)
    _add(parser.add_argument_group("DRACO"), _DRACO)
    parser.add_argument("--no-unify", action="store_true", default=None, help="DRACO without unification")
    plot = parser.add_argument_group("sweep")
    plot.add_argument("--sweep", metavar="N,N,…", help="these numbers of peers, at three capacities, beside the laws")
    plot.add_argument("-o", "--output", metavar="FILE.html", help="draw the sweep")


def _add(group: Any, flags: tuple[_Flag, ...]) -> None:
    for flag in flags:
        action = "append" if flag.many else "store"
        group.add_argument(f"--{flag.name}", type=flag.read, action=action, metavar=flag.metavar, help=flag.help)


def _key(name: str) -> str:
    return name.replace("-", "_")


def options(args: argparse.Namespace) -> dict[str, Any]:
    """Flags, over those of a file, over the defaults."""
    flags = {_key(f.name): f for f in (*_SIZES, *_GENERAL, *_DRACO)}
    switches = {"opportunistic", "train", "resume", "no_unify"}
    found = {key: flag.default for key, flag in flags.items()}
    for key, value in load_options(args.config, "B846").items():
        if key in switches | {"sweep"}:
            found[key] = value
        elif key in flags:
            found[key] = _read(flags[key], value)
        else:
            names = [f.name for f in flags.values()]
            raise BaechiError(
                "B846", f"{args.config}: there is no option '{key}'", help=nearest(key, names, "one of: ")
            )
    found.update(
        {key: value for key, value in vars(args).items() if value is not None and key in {*flags, *switches, "sweep"}}
    )
    return found


def _read(flag: _Flag, value: Any) -> Any:
    """A value of a file, read as the flag's would be."""
    try:
        if flag.many:
            return [flag.read(str(v)) for v in (value if isinstance(value, list) else [value])]
        return flag.read(str(value))
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise BaechiError(
            "B846", f"{flag.name} cannot be {value!r}", help=f"{flag.metavar}: {flag.help}; {error}"
        ) from None


def is_general(given: Mapping[str, Any]) -> bool:
    """Whether an option chooses the general simulator."""
    choosing = ("train", "resume", "no_unify", *(_key(flag.name) for flag in (*_GENERAL, *_DRACO)))
    return any(given.get(name) is not None and given[name] is not False for name in choosing)


def is_draco(given: Mapping[str, Any]) -> bool:
    """Whether an option is of DRACO only."""
    return bool(given.get("no_unify")) or any(given[_key(flag.name)] is not None for flag in _DRACO)
