"""What `baechi replicas simulate` says."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from baechi.replicas.age_model import AgeModel
    from baechi.replicas.ages import Ages
    from baechi.replicas.sweep import Point
    from baechi.replicas.trial import Trial

__all__ = ["ages_data", "ages_text", "sweep_text", "trial_data", "trial_text"]

_LAW = {
    "complete": "mu_eff H(n-1) / lambda",
    "ring": "mu_eff n / (2 lambda)",
}
_ROWS = 9
_WARM_SHARE = 0.25


def ages_data(model: "AgeModel", found: "Ages", seed: int) -> dict[str, Any]:
    """What a compiled simulation measured, as plain data."""
    from baechi.replicas.age_model import staleness_law, transient_law

    return {
        "engine": "ages",
        "peers": model.topology.peers,
        "topology": model.topology.name,
        "mixing": model.mixing,
        "opportunistic": model.opportunistic,
        "capacity": model.capacity,
        "update_rate": model.update_rate,
        "compute_offset": model.compute_offset,
        "effective_update_rate": model.effective_rate,
        "seed": seed,
        "time": found.seconds,
        "warmup": found.warmup,
        "settled": found.settled,
        "mean_staleness": found.mean_staleness,
        "error": found.error,
        "law": staleness_law(model),
        "law_at_end": transient_law(model, found.seconds),
        "staleness_at_end": found.staleness_at_end,
        "sources": len(found.sources),
        "exchanges": found.exchanges,
        "times": found.times.tolist(),
        "staleness": found.staleness.tolist(),
        "disagreement": found.disagreement.tolist(),
    }


def ages_text(data: Mapping[str, Any]) -> str:
    """The same for people, in 80 columns."""
    how = "opportunistic" if data["opportunistic"] else data["mixing"]
    offset = f"{data['compute_offset']:g} s + " if data["compute_offset"] else ""
    tracked = "all peers" if data["sources"] == data["peers"] else f"{data['sources']} peers drawn at random"
    lines = [
        f"{data['peers']:,} peers, {data['topology']}, {how} mixing, {data['time']:g} s, seed {data['seed']}",
        "",
        f"update clock  {offset}exponential, mean {1 / data['update_rate']:g} s: {data['effective_update_rate']:.4g} updates/s a peer",
        f"mixing clock  exponential: capacity lambda = {data['capacity']:.4g} exchanges/s a peer",
        f"simulated     {data['exchanges']:,} exchanges; updates of {tracked} tracked",
        "",
    ]
    spread = f" (standard error {data['error']:.2g})" if data["error"] is not None else ""
    lines.append(f"staleness     {data['mean_staleness']:.4g} updates of another peer are missing{spread}")
    lines += _law_lines(data)
    if data["disagreement"]:
        lines.append(f"disagreement  {data['disagreement'][-1]:.3g} of what it was at the beginning")
    return "\n".join(lines)


def _law_lines(data: Mapping[str, Any]) -> list[str]:
    law = data["law"]
    if law is None:
        return ["law           none known for this topology"]
    name = "mu_eff (n-1) / lambda" if data["opportunistic"] else _LAW[data["topology"]]
    if data["mixing"] == "symmetric":
        name += ", lambda twice: both learn"
    lines = [f"law           {law:.4g} = {name}" + (_off(data["mean_staleness"], law) if data["settled"] else "")]
    if not data["settled"]:
        lines.append(f"              not reached: news need longer to pass all peers than {data['time']:g} s")
        if data["law_at_end"] is not None:
            late, then = data["law_at_end"], data["staleness_at_end"]
            lines.append(f"at the end    {then:.4g}, law at {data['time']:g} s {late:.4g}" + _off(then, late))
    return lines


def _off(measured: float, law: float) -> str:
    return f"; measured {100 * (measured / law - 1):+.1f} %"


def sweep_text(points: "Sequence[Point]") -> str:
    """A table: a row for each number of peers, three policies beside their laws."""
    by = {(p.policy, p.peers): p for p in points}
    counts = list(dict.fromkeys(p.peers for p in points))
    lines = [
        "staleness (updates): simulated / law",
        "",
        f"{'peers':>9}  {'constant capacity':>20}  {'capacity x ln n':>20}  {'opportunistic':>20}",
    ]
    for n in counts:
        cells = [by[policy, n] for policy in ("constant", "log", "opportunistic")]
        lines.append(f"{n:>9,}  " + "  ".join(f"{c.staleness:>9.4g} / {c.law:<8.4g}" for c in cells).rstrip())
    worst = max(abs(p.staleness / p.law - 1) for p in points)
    lines += ["", f"largest deviation from a law: {worst:.1%}"]
    return "\n".join(lines)


def trial_data(trial: "Trial") -> dict[str, Any]:
    """What a general simulation measured, as plain data."""
    options, world, last = trial.options, trial.world, trial.samples[-1]
    c = options.conditions
    return {
        "engine": "events",
        "algorithm": options.algorithm,
        "peers": options.peers,
        "topology": options.topology,
        "mixing": options.gossip.mixing if options.algorithm == "gossip" else options.draco.exchange,
        "compute_time": str(c.compute),
        "mixing_time": str(c.mixing),
        "delay": str(c.latency),
        "seed": options.seed,
        "time": world.now,
        "mean_staleness": trial.mean_staleness(_WARM_SHARE * world.now),
        "law": trial.law(),
        "warning": trial.warning,
        "loss": _finite(last.loss),
        "loss_of_mean": _finite(last.loss_of_mean),
        "loss_at_start": _finite(trial.samples[0].loss),
        "loss_at_optimum": trial.problem.loss(trial.problem.optimum),
        "disagreement": _finite(last.disagreement),
        "replicas": [
            {"peer": i, "up": up, "incarnation": world.lives[i], "steps": world.steps[i], "loss": _finite(loss)}
            for i, (up, loss) in enumerate(zip(world.up, trial.losses(), strict=True))
        ],
        "messages": dict(sorted(world.counts.items())),
        "refused": trial.refused(),
        "samples": [{name: _finite(value) for name, value in sample._asdict().items()} for sample in trial.samples],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def trial_text(data: Mapping[str, Any]) -> str:
    """The same for people, in 80 columns."""
    messages, replicas = data["messages"], data["replicas"]
    steps = [r["steps"] for r in replicas]
    lines = [
        f"{data['peers']:,} peers, {data['algorithm']}, {data['mixing']}, {data['topology']}, {data['time']:g} s, seed {data['seed']}",
        "linear regression, each peer on data of its own",
        "",
        f"updates       {sum(steps):,}: {min(steps):,} to {max(steps):,} a peer; each takes {data['compute_time']} s",
        f"mixing clock  {data['mixing_time']} s; messages take {data['delay']} s",
        "messages      " + ", ".join(f"{value:,} {name}" for name, value in messages.items()),
    ]
    if data["refused"]:
        lines.append("no effect     " + ", ".join(f"{value:,} {name}" for name, value in data["refused"].items()))
    lines.append("")
    if data["mean_staleness"] is not None:
        law = f"; law {data['law']:.4g}" if data["law"] is not None else ""
        lines.append(f"staleness     {data['mean_staleness']:.4g} updates of another peer are missing{law}")
    lines += ["", f"{'seconds':>9} {'loss':>11} {'of the mean':>12} {'disagreement':>13} {'staleness':>10} {'up':>5}"]
    samples = data["samples"]
    for k in sorted({round(i * (len(samples) - 1) / (_ROWS - 1)) for i in range(_ROWS)}):
        s = samples[k]
        loss, mean, apart = (
            "-" if v is None else f"{v:.4g}" for v in (s["loss"], s["loss_of_mean"], s["disagreement"])
        )
        lines.append(f"{s['seconds']:>9.4g} {loss:>11} {mean:>12} {apart:>13} {s['staleness']:>10.4g} {s['up']:>5}")
    lines += ["", f"loss at the optimum of all data: {data['loss_at_optimum']:.5g}"]
    return "\n".join([*lines, *_replica_lines(replicas)])


def _replica_lines(replicas: Sequence[Mapping[str, Any]]) -> list[str]:
    """A row for each peer when they are few."""
    if len(replicas) > 16:
        return []
    rows = [f"{'peer':>9} {'updates':>9} {'loss':>11}"]
    for r in replicas:
        loss = "-" if r["loss"] is None else f"{r['loss']:.5g}"
        note = "" if r["up"] else "  down"
        note += f"  restarted {r['incarnation']} times" if r["incarnation"] else ""
        rows.append(f"{r['peer']:>9} {r['steps']:>9,} {loss:>11}{note}")
    return ["", *rows]
