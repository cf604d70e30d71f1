"""Advice about stale gradients as a person reads it, and as plain data."""

import math
from dataclasses import asdict
from typing import Any

from baechi.replicas.delays import Delay, Erlang, Histogram
from baechi.replicas.staleness import MOST_WORKERS, Advice, Setting
from baechi.units import format_seconds

__all__ = ["advice_text", "advice_to_dict", "law_text"]


def advice_text(advice: Advice) -> str:
    """What to do, in 80 columns: first the answer, then what would be better, then settings to choose from."""
    least = "" if advice.least == advice.curvature else f", by {_number(advice.least)} at least"
    lines = [
        f"a gradient takes {law_text(advice.law)}",
        f"the loss curves by {_number(advice.curvature)} at most{least}",
    ]
    if advice.asked is not None:
        lines += ["", *_asked(advice, advice.asked)]
    if advice.largest_workers is not None:
        lines += ["", *_with_step(advice)]
    if advice.fastest_step is not None and advice.largest_step is not None:
        best = advice.fastest_step
        lines += [
            "",
            f"with {_workers(best.workers)}: it converges below a step size of {_number(advice.largest_step)},",
            f"  and fastest at {_number(best.step_size)}: {_pace(best)}",
        ]
    return "\n".join([*lines, "", *_table(advice)])


def law_text(law: Delay) -> str:
    """The law of a delay in a few words."""
    mean = format_seconds(law.mean)
    if isinstance(law, Histogram):
        return f"{mean}, always" if law.is_fixed else f"{mean} on average, as measured"
    if isinstance(law, Erlang):
        kind = "exponential" if law.shape == 1 else f"Erlang-{law.shape}"
        return f"{mean} on average, {kind}" + (f" after {format_seconds(law.offset)}" if law.offset else "")
    return f"{mean} on average"


def advice_to_dict(advice: Advice) -> dict[str, Any]:
    """Plain data: what is without end is None."""
    return {
        "schema": "baechi/replicas-plan/1",
        "stable": None if advice.asked is None else advice.asked.is_stable,
        "delay_seconds": advice.law.mean,
        "delay": law_text(advice.law),
        "curvature": advice.curvature,
        "least_curvature": advice.least,
        "asked": _plain(advice.asked),
        "largest_step_size": advice.largest_step,
        "fastest_step_size": _plain(advice.fastest_step),
        "largest_workers": advice.largest_workers,
        "fastest_workers": _plain(advice.fastest_workers),
        "settings": [_plain(setting) for setting in advice.table],
    }


def _plain(setting: Setting | None) -> dict[str, Any] | None:
    if setting is None:
        return None
    found = {**asdict(setting), "stable": setting.is_stable, "fold_seconds": setting.fold_seconds}
    return {key: value if math.isfinite(value) else None for key, value in found.items()}


def _asked(advice: Advice, asked: Setting) -> list[str]:
    product = (
        f"p = {_number(asked.step_size)} x {_number(advice.curvature)} x {asked.workers} = {_number(asked.product)}"
    )
    head = f"{_workers(asked.workers)}, step size {_number(asked.step_size)}: "
    if not asked.is_stable:
        return [head + "it diverges", f"  {product}, and the limit is {_number(asked.limit)}"]
    return [
        head + "it converges,",
        f"  {_pace(asked)}",
        f"  {product}, {asked.product / asked.limit:.0%} of the limit {_number(asked.limit)}",
        f"  in the long run it stays {_number(asked.noise)} x a gradient's deviation from the optimum",
    ]


def _with_step(advice: Advice) -> list[str]:
    best = advice.fastest_workers
    if best is None:
        most = 2 / advice.curvature
        return [f"no number of workers converges: even one needs a step size below {_number(most)}"]
    count = advice.largest_workers or 0
    most_text = f"{MOST_WORKERS} workers or more" if count >= MOST_WORKERS else f"at most {_workers(count)}"
    return [
        f"with step size {_number(best.step_size)}: it converges with {most_text},",
        f"  and {_workers(best.workers)} {'is' if best.workers == 1 else 'are'} the fastest: {_pace(best)}",
    ]


def _table(advice: Advice) -> list[str]:
    rows = [("workers", "fastest step", "limit", "1/e in", "noise")]
    for s in advice.table:
        step, most = _number(s.step_size), _number(s.limit / (advice.curvature * s.workers))
        rows.append((str(s.workers), step, most, _fold(s), _number(s.noise)))
    return ["".join(f"{cell:>14}" for cell in row) for row in rows]


def _fold(setting: Setting) -> str:
    return "one update" if math.isinf(setting.rate) else format_seconds(setting.fold_seconds)


def _pace(setting: Setting) -> str:
    if math.isinf(setting.rate):
        return "one update ends it"
    swing = f", swinging every {format_seconds(setting.turn)}" if math.isfinite(setting.turn) else ""
    return f"to 1/e in {format_seconds(setting.fold_seconds)}{swing}"


def _workers(count: int) -> str:
    return f"{count} worker" + ("s" if count != 1 else "")


def _number(value: float) -> str:
    return f"{value:.3g}"
