"""Simulate replicas that gossip: how stale they are, beside the exact law, and how they train under faults.

Without faults and training the simulator is compiled and takes a million peers. Any of the options of links, faults,
training or DRACO chooses the general one: peers of the same code as real replicas train a linear regression.
"""

import argparse
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from baechi.cli.arguments import positive, whole
from baechi.cli.output import emit, emit_json, progress, say
from baechi.document import load_toml, nearest
from baechi.errors import BaechiError

if TYPE_CHECKING:
    from baechi.replicas.trial import TrialOptions

__all__ = ["configure", "execute"]

SCHEMA = "baechi/replicas-simulate/1"


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


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--config", metavar="FILE.toml", help="these options, by their long names; flags win")
    _declare(parser.add_argument_group("the peers"), _SIZES)
    general = parser.add_argument_group("links, faults, training (the general simulator)")
    _declare(general, _GENERAL)
    general.add_argument("--resume", action="store_true", default=None, help="go on from --checkpoint, if it is there")
    for name, help in _SWITCHES.items():
        parser.add_argument(f"--{name}", action="store_true", default=None, help=help)
    _declare(parser.add_argument_group("DRACO"), _DRACO)
    parser.add_argument("--no-unify", action="store_true", default=None, help="DRACO without unification")
    plot = parser.add_argument_group("sweep")
    plot.add_argument("--sweep", metavar="N,N,…", help="these numbers of peers, at three capacities, beside the laws")
    plot.add_argument("-o", "--output", metavar="FILE.html", help="draw the sweep")


def execute(args: argparse.Namespace) -> int:
    """Simulate and print."""
    given = _given(args)
    if args.output and not given.get("sweep"):
        raise BaechiError("B108", "-o draws a sweep", help="--sweep 8,32,128,512")
    if given.get("sweep"):
        return _sweep(args, given)
    flags = (*_GENERAL, *_DRACO)
    choosing = ("train", "resume", "no_unify", *(_key(flag.name) for flag in flags))
    if any(given.get(name) is not None and given[name] is not False for name in choosing):
        return _general(args, given)
    return _ages(args, given)


def _declare(group: Any, flags: tuple[_Flag, ...]) -> None:
    for flag in flags:
        action = "append" if flag.many else "store"
        group.add_argument(f"--{flag.name}", type=flag.read, action=action, metavar=flag.metavar, help=flag.help)


def _key(name: str) -> str:
    return name.replace("-", "_")


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """Flags, over those of a file, over the defaults."""
    flags = {_key(f.name): f for f in (*_SIZES, *_GENERAL, *_DRACO)}
    switches = {"opportunistic", "train", "resume", "no_unify"}
    found = {key: flag.default for key, flag in flags.items()}
    for key, value in _file(args.config).items():
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


def _file(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    table = load_toml(path, "B846", missing="B110", malformed="B846").table()
    return {_key(name): value for name, value in table.items()}


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


def _rate(given: Mapping[str, Any]) -> float:
    """The capacity of a peer, in exchanges a second."""
    text = given["capacity"]
    try:
        rate = math.log(given["peers"]) if text == "log" else float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < math.inf:
        raise BaechiError("B108", f"capacity '{text}' is no rate", help="a number above 0, or log")
    return rate


def _seconds(given: Mapping[str, Any], rate: float) -> float:
    if given["time"] is not None and given["rounds"] is not None:
        raise BaechiError("B108", "--time and --rounds say the same", help="give one of them")
    seconds = given["time"] if given["rounds"] is None else given["rounds"] / rate
    if seconds is None:
        return 200.0
    if not 0 < seconds < math.inf:
        raise BaechiError("B108", f"cannot simulate {seconds:g} seconds", help="--time or --rounds above 0")
    return float(seconds)


def _ages(args: argparse.Namespace, given: Mapping[str, Any]) -> int:
    from baechi.cli.replicas.simulate_text import ages_data, ages_text
    from baechi.replicas.ages import AgeModel, simulate_ages
    from baechi.replicas.topology import parse_topology

    rate = _rate(given)
    model = AgeModel(
        parse_topology(given["topology"], given["peers"], given["seed"]),
        rate,
        given["update_rate"],
        given["compute_offset"],
        given["mixing"],
        opportunistic=bool(given.get("opportunistic")),
    )
    with progress(f"simulating {given['peers']:,} peers"):
        found = simulate_ages(
            model,
            _seconds(given, rate),
            seed=given["seed"],
            sources=given["sources"],
            dimension=given["dimension"] or 0,
        )
    data = {"schema": SCHEMA, **ages_data(model, found, given["seed"])}
    if args.json:
        emit_json(data)
    else:
        emit(ages_text(data))
    return 0


def _sweep(args: argparse.Namespace, given: Mapping[str, Any]) -> int:
    from dataclasses import asdict

    from baechi.cli.replicas.simulate_text import sweep_text
    from baechi.replicas.sweep import sweep, sweep_page

    counts = given["sweep"].split(",") if isinstance(given["sweep"], str) else given["sweep"]
    if not all(str(n).strip().isdigit() and int(n) >= 2 for n in counts):
        raise BaechiError("B108", f"'{given['sweep']}' are no numbers of peers", help="--sweep 8,32,128,512")
    with progress("simulating"):
        points = list(
            sweep(
                [int(n) for n in counts],
                capacity=_rate(given),
                update_rate=given["update_rate"],
                compute_offset=given["compute_offset"],
                seed=given["seed"],
            )
        )
    if args.json:
        emit_json({"schema": SCHEMA, "points": [asdict(p) for p in points]})
    else:
        emit(sweep_text(points))
    if args.output:
        sweep_page(points, args.output)
        say(f"wrote {args.output}")
    return 0


def _general(args: argparse.Namespace, given: Mapping[str, Any]) -> int:
    from pathlib import Path

    from baechi.cli.replicas.simulate_text import trial_data, trial_text
    from baechi.replicas.trial import Trial

    if given.get("opportunistic") or given["sources"]:
        raise BaechiError("B108", "--opportunistic and --sources are of simulations without links, faults and training")
    if given.get("resume") and not given["checkpoint"]:
        raise BaechiError("B108", "--resume needs a file", help="--checkpoint FILE --resume")
    options, seconds = _trial_options(given)
    path = given["checkpoint"]
    resumed = bool(given.get("resume")) and Path(path).exists()
    trial = Trial.resume(path, options) if resumed else Trial(options)
    if resumed:
        say(f"going on at {trial.world.now:g} s")
    if trial.warning:
        say(f"warning: {trial.warning}")
    with progress(f"simulating {options.peers:,} peers"):
        trial.run(seconds, path)
    data = {"schema": SCHEMA, **trial_data(trial)}
    if args.json:
        emit_json(data)
    else:
        emit(trial_text(data))
    return 0


def _trial_options(given: Mapping[str, Any]) -> "tuple[TrialOptions, float]":
    from baechi.replicas.clocks import parse_distribution
    from baechi.replicas.conditions import Conditions, parse_change, parse_partition
    from baechi.replicas.gossip import GossipOptions
    from baechi.replicas.trial import TrialOptions

    rate = _rate(given)
    if not given["update_rate"] > 0:
        raise BaechiError("B108", "--update-rate is above 0")
    bandwidth = given["bandwidth"]
    mixing = parse_distribution(given["mixing_time"] or f"exp:{1 / rate!r}")
    conditions = Conditions(
        compute=parse_distribution(
            given["compute_time"] or f"{given['compute_offset']}+exp:{1 / given['update_rate']!r}"
        ),
        mixing=mixing,
        burst=given["burst"],
        latency=parse_distribution(given["delay"] or "0"),
        bandwidth=parse_distribution(bandwidth) if bandwidth else None,
        drop=given["drop"] or 0.0,
        timeout=10.0 if given["timeout"] is None else given["timeout"],
        slow=_stragglers(given["straggler"] or (), given["peers"]),
        partitions=tuple(parse_partition(text) for text in given["partition"] or ()),
        churn=tuple(parse_change(text) for text in given["churn"] or ()),
    )
    seconds = _seconds(given, 1 / mixing.mean if mixing.mean else rate)
    draco = any(given[_key(f.name)] is not None for f in _DRACO) or given.get("no_unify")
    problem = {
        "dimension": given["dimension"],
        "skew": given["skew"],
        "eta": given["eta"],
        "local": given["local_steps"],
    }
    options = TrialOptions(
        given["peers"],
        given["algorithm"] or ("draco" if draco else "gossip"),
        given["topology"],
        GossipOptions(mixing=given["mixing"]),
        _draco_options(given),
        conditions,
        {name: value for name, value in problem.items() if value is not None},
        seconds / 40 if given["every"] is None else given["every"],
        given["seed"],
    )
    return options, seconds


def _draco_options(given: Mapping[str, Any]) -> Any:
    from baechi.replicas.draco import DracoOptions

    flags = {"exchange": "exchange", "own": "own_weight", "period": "period"}
    chosen = {name: given[flag] for name, flag in flags.items() if given[flag] is not None}
    chosen |= {name: given[name] for name in ("max_delay", "max_received") if given[name] is not None}
    unify = not given.get("no_unify") and chosen.get("exchange") != "push-sum"
    return DracoOptions(**chosen, unify=unify, seed=given["seed"])


def _stragglers(texts: Any, peers: int) -> dict[int, float]:
    found = {}
    for text in texts:
        peer, _, factor = text.partition("=")
        try:
            found[int(peer)] = float(factor)
        except ValueError:
            raise BaechiError(
                "B108", f"'{text}' is no straggler", help="--straggler 3=4: peer 3, 4 times as slow"
            ) from None
        if not 0 <= int(peer) < peers:
            raise BaechiError("B108", f"there is no peer {peer} of {peers}", help="they begin at 0")
    return found
