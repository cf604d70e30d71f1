"""Train replicas of a model that gossip; a script's `baechi.replicas.join` says which model.

baechi replicas -n 4 -- train.py --its arguments
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from baechi.cli.arguments import pairs, positive, whole
from baechi.cli.output import emit, emit_json, say
from baechi.errors import BaechiError

if TYPE_CHECKING:
    from baechi.replicas.cluster.run import RunOptions, Statuses

__all__ = ["configure", "execute"]

_GOSSIP = ("replicas", "devices", "mixing", "capacity", "every", "topology", "max_staleness", "rule", "buffers", "seed")
_RUN = ("checkpoint", "checkpoint_every", "resume", "address", "run", "restarts", "method", "algorithm")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("script", metavar="SCRIPT", help="what each replica runs; `--` comes before it")
    parser.add_argument("arguments", metavar="ARGUMENT", nargs=argparse.REMAINDER, help="of the script")
    parser.add_argument("--config", metavar="FILE.toml", help="these options, by their long names; flags win")
    parser.add_argument("-n", "--replicas", type=positive, metavar="N", help="how many (default 2)")
    parser.add_argument("--devices", type=positive, metavar="K", help="worker processes of each replica (default 1)")
    mixing = parser.add_argument_group("gossip")
    mixing.add_argument("--algorithm", choices=("gossip", "draco"), help="what the replicas say (default gossip)")
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
    options = _options(args)
    from baechi.replicas.cluster.body import Body
    from baechi.replicas.cluster.driver import Driver, default_threads
    from baechi.replicas.cluster.outcome import outcome_data, outcome_text

    logs = args.logs or tempfile.mkdtemp(prefix="baechi-replicas-")
    processes = options.hub.count * options.hub.shares
    threads = args.threads or (default_threads(processes) if options.address is None else 0)
    body = Body(
        str(Path(args.script).resolve()), tuple(args.arguments), logs=str(Path(logs).resolve()), threads=threads
    )
    say(f"{options.hub.count} replicas, their output in {logs}")
    with Driver(options, body) as driver, _table(options) as show:
        outcome = driver.wait(show)
    data = outcome_data(outcome, options)
    if args.output:
        from baechi.files import write_atomic

        write_atomic(args.output, json.dumps(data, allow_nan=False))
        say(f"wrote {args.output}")
    if args.json:
        emit_json(data)
    else:
        emit(outcome_text(data))
    return 1 if any(e.code for e in outcome.ended.values()) else 0


def _options(args: argparse.Namespace) -> "RunOptions":
    """The options of a run: flags, over those of a file, over the defaults."""
    from baechi.replicas.attacks.weakness import weaknesses
    from baechi.replicas.cluster.settings import run_options

    flags = {name: getattr(args, name) for name in (*_GOSSIP, *_RUN) if getattr(args, name) is not None}
    options = run_options(args.config, {**flags, **pairs(args.option, "--option")})
    gossip = options.hub.gossip
    if gossip.rule is not None:
        voters = min(options.hub.count, gossip.newest + 1)
        bears = gossip.rule_options.get("f", gossip.rule_options.get("b", 0))
        for warning in weaknesses(gossip.rule, voters, f=bears):
            say(f"note: {warning}")
    return options


@contextmanager
def _table(options: "RunOptions") -> "Iterator[Callable[[Statuses], None]]":
    """Show how the replicas are, where somebody is watching."""
    if not sys.stderr.isatty():
        yield lambda statuses: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from baechi.replicas.cluster.outcome import status_text

    with Live(console=Console(stderr=True), transient=True) as live:
        yield lambda statuses: live.update(Text(status_text(statuses, options)))
