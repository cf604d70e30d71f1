"""Train replicas of a model that gossip; a script's `baechi.replicas.join` says which model.

baechi replicas -n 4 -- train.py --its arguments; with --peers FILE, clusters of unlike peers that hold one model
together (`baechi.replicas.join_cluster` in the script).
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baechi.cli.arguments import pairs, positive, whole
from baechi.cli.output import emit, emit_json, say
from baechi.errors import BaechiError

if TYPE_CHECKING:
    from baechi.replicas.cluster.body import Body, Ended
    from baechi.replicas.cluster.run import RunOptions, Statuses

__all__ = ["configure", "execute"]

_GOSSIP = ("replicas", "devices", "mixing", "capacity", "every", "topology", "max_staleness", "rule", "buffers", "seed")
_RUN = ("checkpoint", "checkpoint_every", "resume", "address", "run", "restarts", "method", "algorithm")
_CREW = ("peers", "clusters", "placer", "under_way", "average_every", "average_optimizer")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("script", metavar="SCRIPT", help="what each replica runs; `--` comes before it")
    parser.add_argument("arguments", metavar="ARGUMENT", nargs=argparse.REMAINDER, help="of the script")
    parser.add_argument("--config", metavar="FILE.toml", help="these options, by their long names; flags win")
    parser.add_argument("-n", "--replicas", type=positive, metavar="N", help="how many (default 2)")
    parser.add_argument("--devices", type=positive, metavar="K", help="worker processes of each replica (default 1)")
    mixing = parser.add_argument_group("gossip")
    mixing.add_argument("--algorithm", choices=("gossip", "draco", "ravnest"), help="default gossip")
    mixing.add_argument("--mixing", choices=("symmetric", "pull", "push-sum"), help="who of a pair moves (symmetric)")
    mixing.add_argument("--capacity", type=float, metavar="RATE", help="exchanges a second of a replica (default 5)")
    mixing.add_argument("--every", type=positive, metavar="K", help="steps from one update to the next (default 1)")
    mixing.add_argument("--topology", metavar="NAME", help="complete (default), ring, torus, exponential, …")
    mixing.add_argument("--max-staleness", type=whole, metavar="N", help="refuse models that miss more of our updates")
    mixing.add_argument("--rule", metavar="NAME", help="robust aggregation of the newest snapshots: krum, median, …")
    mixing.add_argument(
        "--option", action="append", metavar="K=V", default=[], help="of the rule, of gossip, or of the method"
    )
    mixing.add_argument("--buffers", action="store_true", default=None, help="mix floating-point buffers too")
    mixing.add_argument("--seed", type=whole, metavar="N", help="of the choice of peers (default 0)")
    parser.add_argument("--method", metavar="NAME", help="no gossip: a synchronous method, cser, local-adaalter, …")
    crew = parser.add_argument_group("clusters of peers that hold one model together (ravnest)")
    crew.add_argument("--peers", metavar="FILE.toml", help="[[peer]] tables, as for `baechi replicas clusters`")
    crew.add_argument("--clusters", type=positive, metavar="K", help="how many (default: as many as hold the model)")
    crew.add_argument("--placer", metavar="NAME", help="who cuts the model (default contiguous)")
    crew.add_argument("--under-way", type=positive, metavar="N", help="micro-batches at once in a cluster, at most")
    crew.add_argument("--average-every", type=positive, metavar="N", help="micro-batches between averages (default 16)")
    crew.add_argument("--average-optimizer", action="store_true", default=None, help="average its state too")
    kept = parser.add_argument_group("checkpoints")
    kept.add_argument("--checkpoint", metavar="DIR", help="keep checkpoints there")
    kept.add_argument("--checkpoint-every", type=positive, metavar="N", help="steps from one to the next (default 100)")
    kept.add_argument("--resume", action="store_true", default=None, help="go on from the newest ones")
    where = parser.add_argument_group("where")
    where.add_argument("--address", metavar="RAY", help="auto, HOST:PORT or ray://… of a Ray cluster that runs")
    where.add_argument("--run", metavar="NAME", help="replicas of one name on a cluster find each other, late ones too")
    where.add_argument("--restarts", type=whole, metavar="N", help="how often a replica is brought back (default 3)")
    where.add_argument("--logs", metavar="DIR", help="where the scripts' output goes")
    where.add_argument("--threads", type=positive, metavar="N", help="of torch in each worker")
    parser.add_argument("-o", "--output", metavar="FILE", help="write what happened, for `baechi report`")


def execute(args: argparse.Namespace) -> int:
    """Start, watch, and print what became of it."""
    if not Path(args.script).is_file():
        raise BaechiError("B110", f"there is no file '{args.script}'", help="baechi replicas -n 4 -- train.py")
    from baechi.replicas.cluster.settings import is_crew

    given = {n: getattr(args, n) for n in (*_GOSSIP, *_RUN, *_CREW) if getattr(args, n) is not None}
    flags = {**given, **pairs(args.option, "--option")}
    return _train_clusters(args, flags) if is_crew(args.config, flags) else _train_replicas(args, flags)


def _train_replicas(args: argparse.Namespace, flags: dict[str, Any]) -> int:
    options = _options(args.config, flags)
    from baechi.replicas.cluster.driver import Driver
    from baechi.replicas.cluster.outcome import outcome_data, outcome_text, status_text

    body = _body(args, options.hub.count * options.hub.shares, options.address)
    say(f"{options.hub.count} replicas, their output in {body.logs}")
    with Driver(options, body) as driver, _table(lambda statuses: status_text(statuses, options)) as show:
        outcome = driver.wait(show)
    return _tell(args, outcome_data(outcome, options), outcome_text, outcome.ended)


def _train_clusters(args: argparse.Namespace, flags: dict[str, Any]) -> int:
    from baechi.replicas.cluster.crew_driver import CrewDriver
    from baechi.replicas.cluster.crew_outcome import crew_data, crew_status_text, crew_text
    from baechi.replicas.cluster.crew_settings import crew_options

    options = crew_options(args.config, flags)
    body = _body(args, len(options.session.nodes), options.address)
    say(f"{len(options.session.nodes)} peers, their output in {body.logs}")
    with CrewDriver(options.session, body, options.address) as driver, _table(crew_status_text) as show:
        outcome = driver.wait(show)
    return _tell(args, crew_data(outcome, options.session), crew_text, outcome.ended)


def _body(args: argparse.Namespace, processes: int, address: str | None) -> "Body":
    from baechi.replicas.cluster.body import Body
    from baechi.replicas.cluster.driver import default_threads

    logs = args.logs or tempfile.mkdtemp(prefix="baechi-replicas-")
    threads = args.threads or (default_threads(processes) if address is None else 0)
    script = str(Path(args.script).resolve())
    return Body(script, tuple(args.arguments), logs=str(Path(logs).resolve()), threads=threads)


def _tell(
    args: argparse.Namespace,
    data: dict[str, Any],
    text: "Callable[[Mapping[str, Any]], str]",
    ended: "Mapping[int, Ended]",
) -> int:
    """Write and print what became of it; 1 when somebody did not come to the end."""
    if args.output:
        from baechi.files import write_atomic

        write_atomic(args.output, json.dumps(data, allow_nan=False))
        say(f"wrote {args.output}")
    if args.json:
        emit_json(data)
    else:
        emit(text(data))
    return 1 if any(e.code for e in ended.values()) else 0


def _options(config: str | None, flags: dict[str, Any]) -> "RunOptions":
    """The options of a run: flags, over those of a file, over the defaults."""
    from baechi.replicas.attacks.weakness import weaknesses
    from baechi.replicas.cluster.settings import run_options

    options = run_options(config, flags)
    gossip = options.hub.gossip
    if gossip.rule is not None:
        voters = min(options.hub.count, gossip.newest + 1)
        bears = gossip.rule_options.get("f", gossip.rule_options.get("b", 0))
        for warning in weaknesses(gossip.rule, voters, f=bears):
            say(f"note: {warning}")
    return options


@contextmanager
def _table(text: "Callable[[Statuses], str]") -> "Iterator[Callable[[Statuses], None]]":
    """Show how all are, where somebody is watching."""
    if not sys.stderr.isatty():
        yield lambda statuses: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(stderr=True), transient=True) as live:
        yield lambda statuses: live.update(Text(text(statuses)))
