"""Compare placers on one graph and one cluster."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from baechi.cli.arguments import (
    add_goal_arguments,
    add_lighter_arguments,
    add_target_arguments,
    check_placer,
    positive,
)
from baechi.cli.output import emit, emit_json, progress, say
from baechi.cli.run import run_plan
from baechi.cli.subject import Subject, load_subject, restart_tuned
from baechi.errors import BaechiError, Infeasible
from baechi.units import parse_seconds

if TYPE_CHECKING:
    from baechi.ir.plan import Bounds, Plan
    from baechi.report.facts import OneDevice
    from baechi.report.text import Compared

__all__ = ["configure", "execute"]

_PLACERS = ("single", "expert", "contiguous", "teams", "round-robin", "m-topo", "heft", "m-etf", "m-sct", "auto")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_target_arguments(parser)
    parser.add_argument("--placers", metavar="A,B,C", help="which (default: all that apply)")
    add_goal_arguments(parser)
    add_lighter_arguments(parser)
    parser.add_argument(
        "--fail-over", metavar="LIMIT", help="exit 1 when the best predicted step is over 120ms, or 1.2x the bound"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write the plan with the shortest predicted step")
    parser.add_argument("--run", action="store_true", help="also train a few steps with each plan")
    parser.add_argument("--steps", type=positive, default=5, metavar="N", help="steps to time with --run (default 5)")


def execute(args: argparse.Namespace) -> int:
    """Compare; the answer is no when no placer finds a plan or the best is over the limit."""
    names = _chosen(args.placers)
    limit = _limit(args.fail_over) if args.fail_over else None
    if args.run or args.measure:
        restart_tuned(args)
    from baechi.cost import Problem
    from baechi.ir.json import write_plan
    from baechi.report.facts import one_device
    from baechi.report.text import compare_text, head
    from baechi.sim import bounds

    subject = load_subject(args)
    if args.placers is None and all(op.expert is None for op in subject.graph.ops):
        names = tuple(name for name in names if name != "expert")
    found = tuple(_compare(subject, names, args))
    bound = bounds(Problem(subject.graph, subject.cluster, subject.table, args.objective))
    alone = one_device(subject.graph, subject.cluster, subject.table)
    allowed = None if limit is None else limit[0] * (bound.step_seconds if limit[1] else 1.0)
    if args.json:
        emit_json(_to_dict(subject, found, alone, bound, allowed))
    else:
        emit(compare_text(head(subject.graph, subject.cluster), found, alone, bound))
    best = _best(found)
    if best is None:
        return 1
    if args.output:
        write_plan(best, args.output)
        say(f"wrote {args.output}, by {best.placer.name}")
    shortest = best.objective_seconds
    if allowed is not None and shortest > allowed:
        say(f"the best predicted step is {shortest:.6g} s, over the limit of {allowed:.6g} s")
        return 1
    return 0


def _chosen(text: str | None) -> tuple[str, ...]:
    names = _PLACERS if text is None else tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        check_placer(name, {})
    return names


def _limit(text: str) -> tuple[float, bool]:
    """A limit and whether it is a multiple of the bound."""
    number, times, rest = text.strip().partition("x")
    try:
        if rest:
            raise ValueError(text)
        return (float(number), True) if times else (parse_seconds(number), False)
    except ValueError:
        raise BaechiError(
            "B108", f"'{text}' is no limit", help="write 0.12, 120ms, or 1.2x for a multiple of the bound"
        ) from None


def _compare(subject: Subject, names: Sequence[str], args: argparse.Namespace) -> "Iterator[Compared]":
    from baechi.api import place_lighter
    from baechi.passes.lighten import Lighten
    from baechi.report.text import Compared

    for name in names:
        try:
            with progress(f"placing {subject.graph.name} by {name}"):
                _, plan = place_lighter(
                    subject.graph,
                    subject.cluster,
                    name,
                    seed=args.seed,
                    table=subject.table,
                    objective=args.objective,
                    recompute=args.recompute,
                    offload=args.offload,
                )
        except Infeasible as error:
            yield Compared(name, why=error.what.removeprefix(f"'{name}' "), proved=error.proved)
            continue
        found = Compared(name, plan)
        if args.run:
            target = subject.target.lightened(Lighten.of(plan.target))
            measured = run_plan(target, plan, steps=args.steps, memory=False)
            found = replace(found, measured=measured.step_seconds)
        yield found


def _best(found: "Sequence[Compared]") -> "Plan | None":
    plans = [c.plan for c in found if c.plan is not None]
    return min(plans, key=lambda plan: plan.objective_seconds, default=None)


def _to_dict(
    subject: Subject, found: "Sequence[Compared]", alone: "OneDevice", bound: "Bounds", allowed: float | None
) -> dict[str, Any]:
    best = _best(found)
    fired = allowed is not None and (best is None or best.objective_seconds > allowed)
    return {
        "schema": "baechi/compare/1",
        "graph": {"digest": subject.graph.digest, "target": dict(subject.target.description)},
        "cluster": subject.cluster.to_dict(),
        "one_device": {
            "device": alone.device,
            "step_seconds": alone.step_seconds,
            "peak_bytes": alone.peak_bytes,
            "fits": alone.fits,
        },
        "bounds": bound.to_dict(),
        "fail_over": None if allowed is None else {"limit_seconds": allowed, "fired": fired},
        "placers": [_row(c) for c in found],
    }


def _row(c: "Compared") -> dict[str, Any]:
    if c.plan is None:
        return {"placer": c.placer, "found": False, "why": c.why, "proved": c.proved}
    row = {
        "placer": c.placer,
        "found": True,
        "seconds": c.plan.placer.seconds,
        **({"lightened": c.lightened} if c.lightened else {}),
        "predicted": {
            "step_seconds": c.plan.predicted.step_seconds,
            "objective_seconds": c.plan.objective_seconds,
            "peak_bytes": dict(c.plan.predicted.peak_bytes),
        },
    }
    return row if c.measured is None else {**row, "measured": {"step_seconds": c.measured}}
