"""Simulate replicas that gossip: their staleness beside its law, and training.

Without faults and training the simulator is compiled and takes a million
peers. Any option of links, faults, training or DRACO chooses the general one:
peers of the same code as real replicas train a linear regression.
"""

import argparse
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from baechi.cli.output import emit, emit_json, progress, say
from baechi.cli.replicas.simulate_flags import declare, is_draco, is_general, options
from baechi.errors import BaechiError

if TYPE_CHECKING:
    from baechi.replicas.trial import TrialOptions

__all__ = ["configure", "execute"]

SCHEMA = "baechi/replicas-simulate/1"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    declare(parser)


def execute(args: argparse.Namespace) -> int:
    """Simulate and print."""
    given = options(args)
    if args.output and not given.get("sweep"):
        raise BaechiError("B108", "-o draws a sweep", help="--sweep 8,32,128,512")
    if given.get("sweep"):
        return _sweep(args, given)
    if is_general(given):
        return _general(args, given)
    return _ages(args, given)


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
    from baechi.replicas.age_model import AgeModel
    from baechi.replicas.ages import simulate_ages
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
    settings, seconds = _trial_options(given)
    path = given["checkpoint"]
    resumed = bool(given.get("resume")) and Path(path).exists()
    trial = Trial.resume(path, settings) if resumed else Trial(settings)
    if resumed:
        say(f"going on at {trial.world.now:g} s")
    if trial.warning:
        say(f"warning: {trial.warning}")
    with progress(f"simulating {settings.peers:,} peers"):
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
    problem = {
        "dimension": given["dimension"],
        "skew": given["skew"],
        "eta": given["eta"],
        "local": given["local_steps"],
    }
    settings = TrialOptions(
        given["peers"],
        given["algorithm"] or ("draco" if is_draco(given) else "gossip"),
        given["topology"],
        GossipOptions(mixing=given["mixing"]),
        _draco_options(given),
        conditions,
        {name: value for name, value in problem.items() if value is not None},
        seconds / 40 if given["every"] is None else given["every"],
        given["seed"],
    )
    return settings, seconds


def _draco_options(given: Mapping[str, Any]) -> Any:
    from baechi.replicas.draco_options import DracoOptions

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
