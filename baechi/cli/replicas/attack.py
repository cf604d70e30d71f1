"""Train with hostile peers under several aggregation rules, and print who breaks whom.

Without arguments it is the table of the project's README: digits, 20 workers, 6, 9 and 12 of them hostile.
"""

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from baechi.cli.arguments import pairs, positive, whole
from baechi.cli.output import emit, emit_json, progress, say
from baechi.errors import BaechiError

if TYPE_CHECKING:
    from baechi.replicas.attacks.experiment import Match, Outcome
    from baechi.replicas.attacks.table import Setting

__all__ = ["configure", "execute"]

_RULES = "mean,median,trimmed-mean,mean-around-median,phocas,krum,zeno"
_ATTACKS = "gaussian,ipm:epsilon=0.1,ipm:epsilon=1,ipm:epsilon=10"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--rules", metavar="A,B,C", default=_RULES, help=f"which (default {_RULES})")
    parser.add_argument(
        "--attacks", metavar="A,B,C", default=_ATTACKS, help=f"which, NAME or NAME:OPTION=VALUE:… (default {_ATTACKS})"
    )
    parser.add_argument("--workers", type=positive, default=20, metavar="M", help="the hostile among them (default 20)")
    parser.add_argument("--hostile", metavar="Q,Q", default="6,9,12", help="how many (default 6,9,12)")
    parser.add_argument(
        "--bears", type=whole, metavar="B", help="how many a rule is told (default: as many as hostile)"
    )
    parser.add_argument("--dimensional", action="store_true", help="other workers are hostile in each coordinate")
    parser.add_argument("--problem", metavar="NAME", default="mnist", help="quadratic, regression, mnist or bytes")
    parser.add_argument("--set", action="append", metavar="K=V", default=[], help="an option of the problem")
    parser.add_argument("--steps", type=positive, default=250, metavar="N", help="of training (default 250)")
    parser.add_argument("--rate", type=_rate, default=0.1, metavar="R", help="the learning rate (default 0.1)")
    parser.add_argument("--seed", type=whole, default=0, metavar="S", help="of data, start and attacks (default 0)")
    parser.add_argument("--processes", type=positive, metavar="P", help="to work with (default: one for each core)")


def execute(args: argparse.Namespace) -> int:
    """Play all matches; which rules break is data, not the answer."""
    from baechi.replicas.attacks.experiment import Match
    from baechi.replicas.attacks.table import Setting, broken, matches
    from baechi.replicas.problems import problem

    listed, told = _matches(args)
    options = pairs(args.set, "--set")
    for name in ("workers", "seed"):
        if name in options:
            raise BaechiError("B108", f"--set {name}=…: there is an argument for it", help=f"give --{name}")
    options |= {"workers": args.workers, "seed": args.seed}
    setting = Setting(args.problem, options, args.steps, args.rate, args.seed)
    made = problem(setting.problem, **setting.options)
    start_loss = made.loss(made.start(args.seed))
    for line in told:
        say(f"warning: {line}")
    peaceful = Match("mean", None, 0, 0)
    with progress(f"training {len(listed) + 1} times"):
        without, *outcomes = matches(setting, [peaceful, *listed], args.processes or os.cpu_count() or 1)
    lost = [broken(outcome, without, start_loss) for outcome in outcomes]
    if args.json:
        emit_json(_document(setting, without, listed, outcomes, lost, told))
    else:
        emit(_text(setting, without, listed, outcomes, lost))
    return 0


def _matches(args: argparse.Namespace) -> tuple[list["Match"], list[str]]:
    """What can be played, attack by attack, and what to say beforehand."""
    from baechi.replicas.attacks.experiment import Match
    from baechi.replicas.attacks.weakness import weaknesses
    from baechi.replicas.rules import MAJORITY

    corruption = "dimensional" if args.dimensional else "classic"
    attacks = [_attack(text) for text in args.attacks.split(",")]
    listed, told = [], []
    for hostile in _counts(args.hostile, args.workers):
        bears = hostile if args.bears is None else args.bears
        for rule in args.rules.split(","):
            told += weaknesses(rule, args.workers, f=bears, q=hostile)
            if rule not in MAJORITY and 2 * bears >= args.workers:
                continue
            listed += [Match(rule, name, hostile, bears, options, corruption) for name, options in attacks]
    return listed, list(dict.fromkeys(told))


def _attack(text: str) -> tuple[str, dict[str, Any]]:
    """An attack and its options, tried on a small round."""
    import numpy as np

    from baechi.replicas.attacks import attack, attack_options

    name, *given = text.split(":")
    options, small = pairs(given, "--attacks"), np.ones((2, 2))
    flipped = {"flipped": small} if "flipped" in attack_options(name) else {}
    try:
        attack(name, small, 2, **options, **flipped)
    except (RuntimeError, TypeError, ValueError) as error:
        raise BaechiError("B108", f"--attacks {text}: {str(error).splitlines()[0]}") from None
    return name, options


def _counts(text: str, workers: int) -> list[int]:
    counts = [int(part) if part.isdecimal() else -1 for part in text.split(",")]
    if not all(0 < count < workers for count in counts):
        raise BaechiError("B108", f"--hostile {text}: give numbers from 1 to {workers - 1}")
    return counts


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no positive number")
    return rate


def _called(match: "Match") -> str:
    return " ".join((str(match.attack), *(f"{name}={value}" for name, value in match.options.items())))


def _figure(outcome: "Outcome") -> str:
    if outcome.accuracy is not None:
        return f"{outcome.accuracy:.3f}"
    return "inf" if outcome.loss is None else f"{outcome.loss:.2g}"


def _text(
    setting: "Setting",
    without: "Outcome",
    listed: Sequence["Match"],
    outcomes: Sequence["Outcome"],
    lost: Sequence[bool],
) -> str:
    """The table, and who breaks whom."""
    what = "accuracy" if without.accuracy is not None else "loss"
    workers, rules = setting.options["workers"], list(dict.fromkeys(match.rule for match in listed))
    lines = [
        f"{setting.problem}, {workers} workers, {setting.steps} steps of rate {setting.rate:g}, seed {setting.seed}",
        f"{what} at the end; the mean without an attack: {_figure(without)}; * broken: less than half of that achieved",
        "",
        f"{'attack':24s}{'hostile':>8s}" + "".join(f"{rule:>{max(10, len(rule) + 2)}s}" for rule in rules),
    ]
    cells: dict[tuple[int, str], dict[str, str]] = {}
    for match, outcome, is_lost in zip(listed, outcomes, lost, strict=True):
        cells.setdefault((match.hostile, _called(match)), {})[match.rule] = _figure(outcome) + " *"[is_lost]
    for (hostile, called), row in cells.items():
        figures = "".join(f"{row.get(rule, '- '):>{max(10, len(rule) + 2)}s}" for rule in rules)
        lines.append(f"{called:24s}{hostile:8d}{figures}".rstrip())
    lines += ["", *_verdicts(listed, lost, workers)]
    return "\n".join(lines)


def _verdicts(listed: Sequence["Match"], lost: Sequence[bool], workers: int) -> list[str]:
    """By attack and number of hostile peers, which rules it breaks."""
    broke: dict[str, list[str]] = {}
    for match, is_lost in zip(listed, lost, strict=True):
        rules = broke.setdefault(f"{_called(match)}, {match.hostile} of {workers} hostile", [])
        rules += [match.rule] * is_lost
    return [f"{called}: breaks {', '.join(rules) or 'none'}" for called, rules in broke.items()]


def _document(
    setting: "Setting",
    without: "Outcome",
    listed: Sequence["Match"],
    outcomes: Sequence["Outcome"],
    lost: Sequence[bool],
    told: Sequence[str],
) -> dict[str, Any]:
    """The same as an object."""
    return {
        "schema": "baechi/replicas-attack/1",
        "problem": setting.problem,
        "options": dict(setting.options),
        "steps": setting.steps,
        "rate": setting.rate,
        "seed": setting.seed,
        "without_attack": {"loss": without.loss, "accuracy": without.accuracy},
        "matches": [
            {
                "rule": match.rule,
                "attack": match.attack,
                "attack_options": dict(match.options),
                "hostile": match.hostile,
                "bears": match.bears,
                "corruption": match.corruption,
                "loss": outcome.loss,
                "accuracy": outcome.accuracy,
                "steps": outcome.steps,
                "broken": is_lost,
            }
            for match, outcome, is_lost in zip(listed, outcomes, lost, strict=True)
        ],
        "warnings": list(told),
    }
