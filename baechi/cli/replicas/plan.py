"""Say how many workers may send stale gradients, with which step size, and whether it converges.

The curvature is --curvature, or that of TARGET's loss on its example batch; the time of a gradient is --delay, or that
of TARGET's on this machine; the step size is --step-size, or that of TARGET's SGD.
"""

import argparse
from typing import TYPE_CHECKING

from baechi.cli.arguments import pairs, positive
from baechi.cli.output import emit, emit_json, progress, say
from baechi.errors import BaechiError

if TYPE_CHECKING:
    from baechi.replicas.delays import Delay
    from baechi.target import Target

__all__ = ["configure", "execute"]

_TIMED = 12
_SECONDS = 40.0
_CLOSE = 0.05


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("target", metavar="TARGET", nargs="?", help="models:NAME or package.module:callable")
    parser.add_argument("--batch", type=positive, metavar="N", help="batch size of a model")
    parser.add_argument("--set", action="append", metavar="K=V", default=[], help="an option of the model")
    parser.add_argument("--curvature", type=_above_zero, metavar="H", help="greatest eigenvalue of the Hessian")
    parser.add_argument("--least-curvature", type=_above_zero, metavar="L", help="the least that counts (default H)")
    help_ = "seconds of a gradient: fixed:1.0, exp:1.0, erlang:4:1.0, 0.5+exp:1.0, or FILE.json with delays_seconds"
    parser.add_argument("--delay", metavar="LAW", help=help_)
    parser.add_argument("--step-size", type=_above_zero, metavar="E", help="of each gradient")
    parser.add_argument("--workers", type=positive, metavar="M", help="that send gradients")
    parser.add_argument("--products", type=positive, default=100, metavar="N", help="most Hessian-vector products")
    help_ = "of the batch for the Hessian (default: all, fewer where a model is large)"
    parser.add_argument("--examples", type=positive, metavar="N", help=help_)
    parser.add_argument(
        "--seconds",
        type=_above_zero,
        default=_SECONDS,
        metavar="S",
        help=f"begin no product after (default {_SECONDS:g})",
    )


def execute(args: argparse.Namespace) -> int:
    """Find the law and the curvature, and print the advice; 1 when what was asked about diverges."""
    from baechi.replicas.delays import parse_delay
    from baechi.replicas.staleness import advise
    from baechi.replicas.staleness_text import advice_text, advice_to_dict
    from baechi.target import load_target

    law = parse_delay(args.delay) if args.delay else None
    if args.target is None and not (args.curvature and law):
        raise BaechiError("B108", "there is no TARGET", help="name one, or give both --curvature H and --delay LAW")
    target = load_target(args.target, batch=args.batch, options=pairs(args.set, "--set")) if args.target else None
    curvature, step_size = args.curvature, args.step_size
    if target is not None:
        examples = args.examples
        if examples is None and not (curvature and law):
            from baechi.replicas.curvature import few_examples

            examples = few_examples(target)
        curvature = curvature or _curvature(target, args, examples)
        law = law or _measured(target, args.seconds / 4, examples)
        step_size = step_size or _own_step(target)
    assert law is not None  # a target has one
    with progress("looking for roots"):
        advice = advise(law, curvature, step_size=step_size, workers=args.workers, least=args.least_curvature)
    if args.json:
        emit_json(advice_to_dict(advice))
    else:
        emit(advice_text(advice))
    return 0 if advice.asked is None or advice.asked.is_stable else 1


def _curvature(target: "Target", args: argparse.Namespace, examples: int | None) -> float:
    from baechi.replicas.curvature import target_sharpness

    if examples is not None:
        say(f"note: the Hessian is that of the loss of {examples} example{'s' * (examples > 1)} of the batch")
    with progress(f"multiplying by the Hessian of {target.name}"):
        found = target_sharpness(
            target, products=args.products, tolerance=_CLOSE, seconds=args.seconds, examples=examples
        )
    near = f"within {found.error:.1%} of an eigenvalue" if found.error < 1 else "far from settled"
    count = f"{found.products} Hessian-vector products"
    say(f"note: curvature {found.curvature:.3g} with fresh weights, {near}, after {count}")
    if found.error > _CLOSE:
        say("note: that is a lower bound; --seconds and --products let it come nearer, --curvature gives it")
    if found.curvature <= 0:
        what = f"the loss of {target.name} curves nowhere upwards ({found.curvature:.3g})"
        raise BaechiError("B853", what, help="give the curvature of a trained model: --curvature H")
    return found.curvature


def _measured(target: "Target", most_seconds: float, examples: int | None) -> "Delay":
    from baechi.replicas.curvature import gradient_seconds
    from baechi.replicas.delays import Histogram

    with progress(f"timing {target.name}"):
        seconds = gradient_seconds(target, count=_TIMED, examples=examples, seconds=most_seconds)
    what = f"{len(seconds)} gradient{'s' * (len(seconds) > 1)}" + (
        "" if examples is None else " of these, stretched to the whole batch,"
    )
    say(f"note: {what} timed here; give a real run's delays as --delay FILE.json")
    return Histogram.of(seconds)


def _own_step(target: "Target") -> float | None:
    """The step size of a target's plain SGD; momentum makes each gradient count 1/(1 - momentum) times."""
    job = target.code
    options = dict(getattr(job, "optimizer_options", None) or {})
    if getattr(job, "optimizer", None) != "sgd" or not options.get("lr"):
        return None
    step = float(options["lr"]) / (1 - float(options.get("momentum", 0.0)))
    say(f"note: step size {step:.3g}, that of its SGD" + (", momentum counted in" if options.get("momentum") else ""))
    return step


def _above_zero(text: str) -> float:
    """A number above 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0")
    return value
