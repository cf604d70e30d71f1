"""Plans, runs and comparisons as a person reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from baechi.ir.cluster import Cluster
from baechi.ir.graph import Graph
from baechi.ir.plan import Bounds, Plan
from baechi.ir.text import format_cluster
from baechi.ir.timeline import Timeline
from baechi.passes.lighten import Lighten
from baechi.placers import PLACERS
from baechi.report.facts import Lighter, OneDevice, count_ops, lighter_of, parameter_count, traffic_of
from baechi.report.layout import WIDTH, bar, clip, fields, percent, table, wrap
from baechi.sim.perturb import Sensitivity
from baechi.units import format_bytes, format_count, format_seconds

__all__ = ["Compared", "PlainRun", "compare_text", "head", "plan_text", "run_text"]

_OTHER_BOUNDS = 2
_LIGHTENED = {"recompute": "ops run again", "offload": "tensors to the host and back"}


def plan_text(
    graph: Graph,
    plan: Plan,
    timeline: Timeline,
    alone: OneDevice,
    *,
    seconds: float | None = None,
    errs: Sensitivity | None = None,
) -> str:
    """What a plan does, and how good it is.

    Args:
        graph: what it places.
        plan: the plan.
        timeline: the simulator's account of it.
        alone: the step on one device.
        seconds: what the extraction took.
        errs: what the plan is worth when the costs are wrong.
    """
    lines = [
        head(graph, plan.cluster),
        "",
        *fields(
            [
                ("ops", _ops(graph) + (f" (extracted in {format_seconds(seconds)})" if seconds is not None else "")),
                ("placer", _placer(plan)),
                *_objective(plan),
                *([("costs wrong", _wrong(errs, plan.objective_seconds))] if errs is not None else []),
                ("bound", _bound(plan.bounds)),
                ("one device", _alone(alone, plan.predicted.step_seconds)),
                ("traffic", _traffic(timeline)),
                *_lighter(lighter_of(graph, timeline)),
            ]
        ),
        "",
        *_devices(plan, timeline),
    ]
    return "\n".join(lines) + "\n"


def head(graph: Graph, cluster: Cluster) -> str:
    """One line: what is placed on what."""
    known = graph.meta.get("target", {})
    batch, parts = known.get("batch"), known.get("microbatches")
    what = graph.name + (f", batch {batch}" if batch else "") + (f", {parts} micro-batches" if parts else "")
    return clip(f"{what}, on {format_cluster(cluster)}", WIDTH)


def _ops(graph: Graph) -> str:
    counts = count_ops(graph)
    parameters = parameter_count(graph)
    phases = ", ".join(f"{counts[p]:,} {p}" for p in ("forward", "backward", "update") if counts[p])
    weights = f", {format_count(parameters)} parameters" if parameters else ""
    return f"{counts['ops']:,}, of which {counts['compute']:,} take time; {phases}{weights}"


def _placer(plan: Plan) -> str:
    """Who placed, with the options that are not as they are by default."""
    known = PLACERS.get(plan.placer.name)
    usual = asdict(known()) if known is not None else {}
    options = ", ".join(f"{k}={v}" for k, v in plan.placer.options.items() if k not in usual or usual[k] != v)
    shown = f" ({options})" if options else ""
    return f"{plan.placer.name}{shown}, {format_seconds(plan.placer.seconds)} of processor time, seed {plan.seed}"


def _objective(plan: Plan) -> list[tuple[str, str]]:
    step = f"{format_seconds(plan.predicted.step_seconds)} predicted"
    if plan.objective == "latency":
        return [("step", f"{step}, {_gap(plan)}")]
    each = f"{format_seconds(plan.objective_seconds)} for each step, as the busiest device takes; {_gap(plan)}"
    return [("pipeline", each), ("step", f"{step}, alone")]


def _wrong(errs: Sensitivity, planned: float) -> str:
    low, mean, high = (f"{x / planned:.2f}" if planned else "-" for x in (errs.least, errs.mean, errs.most))
    return f"by up to {percent(errs.spread)}: {low} to {high} x, mean {mean} x, in {errs.samples} samples"


def _gap(plan: Plan) -> str:
    if plan.bounds.step_seconds <= 0:
        return "no lower bound"
    return "equal to the lower bound" if plan.gap < 5e-4 else f"{percent(plan.gap)} above the lower bound"


def _bound(bounds: Bounds) -> str:
    if not bounds.proofs:
        return "none"
    others = sorted(((s, name) for name, s in bounds.proofs.items() if name != bounds.best), reverse=True)
    shown = "".join(f", {name} {format_seconds(s)}" for s, name in others[:_OTHER_BOUNDS])
    return f"{format_seconds(bounds.step_seconds)} by {bounds.best}{';' + shown[1:] if shown else ''}"


def _alone(alone: OneDevice, step: float) -> str:
    takes = f"{format_seconds(alone.step_seconds)} and {format_bytes(alone.peak_bytes)} on {alone.device}"
    ratio = f", {alone.step_seconds / step:.2f} x this plan" if step > 0 else ""
    return takes + ratio + ("" if alone.fits else "; it does not fit")


def _traffic(timeline: Timeline) -> str:
    pairs = traffic_of(timeline)
    if not pairs:
        return "none"
    count, nbytes = sum(p.transfers for p in pairs), sum(p.nbytes for p in pairs)
    amount = format_bytes(nbytes) if nbytes else format_seconds(sum(p.seconds for p in pairs))
    most = pairs[0]
    busiest = format_bytes(most.nbytes) if nbytes else format_seconds(most.seconds)
    where = f"; most from {most.source} to {most.destination}: {busiest}" if len(pairs) > 1 else ""
    return f"{amount} in {count:,} transfer{'s' * (count > 1)}{where}"


def _lighter(found: Lighter | None) -> list[tuple[str, str]]:
    """What is done for less memory, and what it costs."""
    if found is None:
        return []
    facts = []
    if found.recomputed:
        facts.append(("recompute", f"{found.recomputed:,} ops run again, {format_seconds(found.recompute_seconds)}"))
    if found.offloaded:
        what = f"{format_bytes(found.offloaded_bytes)} in {found.offloaded:,} tensors to the host and back"
        facts.append(("offload", f"{what}, {format_seconds(found.offload_seconds)}"))
    return facts


def _devices(plan: Plan, timeline: Timeline) -> list[str]:
    step = timeline.step_seconds
    rows = [("device", "ops", "peak", "cap", "of cap", "", "busy")]
    for device in plan.cluster.devices:
        peak = plan.predicted.peak_bytes.get(device.name, 0)
        share, busy = peak / device.cap, timeline.busy_seconds.get(device.name, 0.0)
        ops = len(plan.order.get(device.name, ()))
        used = percent(busy / step) if step else "-"
        row = (clip(device.name, 14), f"{ops:,}", format_bytes(peak), format_bytes(device.cap), percent(share))
        rows.append((*row, bar(share, 16), used))
    return table(rows, "<>>>><>")


@dataclass(frozen=True, slots=True)
class PlainRun:
    """The plain model, trained beside the placed one.

    Attributes:
        cap_bytes: what its process was held to; None for no cap.
        step_seconds: median of its steps; None when it died.
        peak_bytes: its memory; None when it died.
        losses: of each step.
        error: how it died; None when it did not.
    """

    cap_bytes: int | None
    step_seconds: float | None
    peak_bytes: int | None
    losses: tuple[float, ...]
    error: str | None


def run_text(
    plan: Plan,
    *,
    name: str,
    seconds: Sequence[float],
    median: float,
    spread: float,
    losses: Sequence[float],
    peaks: Mapping[str, int],
    parameters: Mapping[str, int] | None = None,
    plain: Sequence[PlainRun] = (),
) -> str:
    """What a run measured, beside what was predicted.

    Args:
        plan: the plan that ran.
        name: of the graph.
        seconds: of each timed step; `median` and `spread` (quartile distance over median) of them.
        losses: of each step, warm-up included.
        peaks: measured bytes by device.
        parameters: how many each worker process holds; None when devices were threads.
        plain: the plain model's runs.
    """
    predicted = plan.predicted.step_seconds
    ratio = f", {median / predicted:.2f} x the prediction of {format_seconds(predicted)}" if predicted else ""
    facts = [
        ("step", f"{format_seconds(median)} measured{ratio}"),
        ("steps", f"{len(seconds)} timed, quartiles {percent(spread)} apart"),
    ]
    if losses:
        facts.append(("loss", f"{losses[0]:.6g} -> {losses[-1]:.6g} in {len(losses)} steps"))
    if parameters is not None:
        whole = f"{format_count(sum(parameters.values()))} parameters, each in one of them"
        facts.append(("workers", f"{len(parameters)} process{'es' if len(parameters) > 1 else ''} with {whole}"))
    facts += [("plain", _plain_text(run, median, losses)) for run in plain]
    rows = [("device", "measured peak", "predicted", "ratio", "cap")]
    for device in plan.cluster.devices:
        if device.name in peaks:
            wanted, found = plan.predicted.peak_bytes.get(device.name, 0), peaks[device.name]
            share = f"{found / wanted:.2f}" if wanted else "-"
            rows.append((device.name, format_bytes(found), format_bytes(wanted), share, format_bytes(device.cap)))
    top = clip(f"{name}, on {format_cluster(plan.cluster)}, placed by {plan.placer.name}", WIDTH)
    return "\n".join([top, "", *fields(facts), "", *table(rows, "<>>>>")]) + "\n"


def _plain_text(run: PlainRun, median: float, losses: Sequence[float]) -> str:
    where = "without a cap" if run.cap_bytes is None else f"in {format_bytes(run.cap_bytes)}"
    if run.step_seconds is None:
        return f"{where}: {run.error}"
    step = f"{format_seconds(run.step_seconds)} a step, {run.step_seconds / median:.2f} x the placed one"
    pairs = list(zip(losses, run.losses, strict=False))
    worst = max((abs(a - b) / max(abs(b), 1e-12) for a, b in pairs), default=0.0)
    same = "losses equal" if worst == 0 else f"losses differ by {worst:.0e} at most"
    return f"{where}: {step}; {same}"


@dataclass(frozen=True, slots=True)
class Compared:
    """What one placer found.

    Attributes:
        placer: its name.
        plan: its plan; None when it found none.
        why: why not, in a few words.
        proved: whether a bound shows that no plan exists.
        measured: median of measured steps, in seconds.
    """

    placer: str
    plan: Plan | None = None
    why: str = ""
    proved: bool = False
    measured: float | None = None

    @property
    def lightened(self) -> dict[str, int]:
        """How many ops the plan recomputes and how many tensors it offloads, where it does."""
        done = Lighten.of(self.plan.target).described if self.plan is not None else {}
        return {what: len(names) for what, names in done.items()}


def compare_text(top: str, found: Sequence[Compared], alone: OneDevice, bounds: Bounds) -> str:
    """A table of placers, the caps and the bound the same for all.

    Args:
        top: the headline.
        found: what each placer found.
        alone: the step on one device.
        bounds: what no plan can beat.
    """
    ran = any(c.measured is not None for c in found)
    rows = [("placer", "step", *(("measured",) if ran else ()), "one dev.", "bound", "peak/cap", "placed in")]
    rows += [(c.placer, *_compared(c.plan, c.measured, alone, bounds, ran)) for c in found if c.plan is not None]
    takes = f"{format_seconds(alone.step_seconds)}, {format_bytes(alone.peak_bytes)}"
    notes = [("one device", takes + ("" if alone.fits else "; does not fit")), ("bound", _bound(bounds))]
    lines = [top, "", *fields(notes)]
    if len(rows) > 1:
        lines += ["", *table(rows, "<" + ">" * (len(rows[0]) - 1))]
    reasons: dict[str, list[str]] = {}
    for c in found:
        done = ", ".join(f"{count:,} {_LIGHTENED[what]}" for what, count in c.lightened.items())
        if c.plan is None or done:
            reasons.setdefault(done or c.why, []).append(c.placer)
    lines += [""] * bool(reasons)
    for why, placers in reasons.items():
        lines += wrap(f"{', '.join(placers)}: {why}")
    return "\n".join(lines) + "\n"


def _compared(plan: Plan, measured: float | None, alone: OneDevice, bounds: Bounds, ran: bool) -> tuple[str, ...]:
    step = plan.objective_seconds
    worst = max(plan.predicted.peak_bytes[d.name] / d.cap for d in plan.cluster.devices)
    return (
        format_seconds(step),
        *((format_seconds(measured) if measured is not None else "-",) if ran else ()),
        f"{alone.step_seconds / step:.2f} x" if step else "-",
        f"{step / bounds.step_seconds:.3f} x" if bounds.step_seconds else "-",
        percent(worst),
        format_seconds(plan.placer.seconds),
    )
