"""What a run of replicas came to, as data and as text."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from baechi.replicas.age_model import AgeModel, staleness_law
from baechi.replicas.cluster.history import version_ages
from baechi.replicas.topology import parse_topology
from baechi.report.layout import fields, table
from baechi.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from baechi.replicas.cluster.run import Outcome, RunOptions, Statuses

__all__ = ["CELLS", "age_law", "cells", "outcome_data", "outcome_text", "status_text", "summary"]

_LAST = 20


def age_law(count: int, update_rate: float, exchange_rate: float, mixing: str) -> float | None:
    """The version age to expect when all talk to all: mu H_(n-1) / lambda.

    In a symmetric exchange news goes both ways, which doubles lambda.

    Args:
        count: of replicas.
        update_rate: updates a second of one.
        exchange_rate: exchanges a second that one begins.
        mixing: how they mix.

    Returns:
        Updates; None when nothing is exchanged or learned.

    Example:
        >>> age_law(3, 10.0, 5.0, "pull")
        3.0
    """
    if exchange_rate <= 0 or update_rate <= 0 or count < 2:
        return None
    return staleness_law(AgeModel(parse_topology("complete", count), exchange_rate, update_rate, mixing=mixing))


def outcome_data(outcome: "Outcome", options: "RunOptions") -> dict[str, Any]:
    """What happened, as plain data."""
    ages = {**version_ages(outcome.statuses), **outcome.ages}
    rows, pace = [], _pace(outcome.statuses)
    for index, status in sorted(outcome.statuses.items()):
        ended = outcome.ended.get(index)
        rows.append(
            {
                "replica": index,
                **_row(status, ages[index], pace, options),
                "losses": [[step, loss if math.isfinite(loss) else None] for step, loss in status["losses"]],
                "refused": status["refused"],
                "refused_by_peer": {str(peer): why for peer, why in status["refused_by_peer"].items()},
                "restarts": outcome.restarts.get(index, 0),
                "error": None if ended is None or not ended.code else f"error[{ended.code}]: {ended.what}",
            }
        )
    return {
        "schema": "baechi/replicas-run/1",
        "method": options.method or None,
        "mixing": options.hub.gossip.mixing if options.hub.draco is None else "DRACO's",
        "topology": options.hub.topology,
        "capacity": options.hub.capacity,
        "every": options.every,
        "seconds": outcome.seconds,
        "exchange_seconds": [t for status in outcome.statuses.values() for t in status["exchange_seconds"]],
        "delays_seconds": [t for status in outcome.statuses.values() for t in status["step_intervals"]],
        "replicas": rows,
    }


def _pace(statuses: "Statuses") -> float:
    """Exchanges a second that a replica begins, on average."""
    rates = [float(status["exchange_rate"]) for status in statuses.values()]
    return sum(rates) / max(1, len(rates))


def _row(status: Mapping[str, Any], age: float, pace: float, options: "RunOptions") -> dict[str, Any]:
    losses = [loss for _, loss in status["losses"] if math.isfinite(loss)]
    rate = status["rate"] / options.every
    has_law = options.hub.draco is None and options.hub.topology == "complete"
    return {
        "steps": status["steps"],
        "steps_per_second": status["rate"],
        "first_loss": losses[0] if losses else None,
        "loss": sum(losses[-_LAST:]) / len(losses[-_LAST:]) if losses else None,
        "version": status["version"],
        "version_age": age,
        "law": age_law(options.hub.count, rate, pace, options.hub.gossip.mixing) if has_law else None,
        "exchanges": status["mixed"],
        "sent_bytes": status["sent_bytes"],
        "apart": status["apart"],
    }


def outcome_text(data: Mapping[str, Any]) -> str:
    """What happened, for people."""
    rows = data["replicas"]
    lines = [*summary(data), "", *table([CELLS, *map(cells, rows)], _ALIGN)]
    for row in rows:
        if row["error"]:
            lines.append(f"replica {row['replica']}: {row['error']}")
        elif row["restarts"]:
            lines.append(f"replica {row['replica']} died and came back {row['restarts']} times")
    return "\n".join(lines)


def summary(data: Mapping[str, Any]) -> list[str]:
    """What is to be said of all replicas together."""
    delays = sorted(data["exchange_seconds"])
    if data["method"]:
        what = f"{len(data['replicas'])}, trained together by {data['method']}"
    else:
        what = f"{len(data['replicas'])}, {data['mixing']} mixing, {data['topology']}, "
        what += f"up to {data['capacity']:g} exchanges a second"
    pairs = [
        ("replicas", what),
        ("took", format_seconds(data["seconds"])),
    ]
    if delays:
        median = format_seconds(delays[len(delays) // 2])
        pairs.append(("exchange", f"{median} there and back, median of {len(delays):,}"))
    return fields(pairs)


CELLS = ("replica", "steps", "steps/s", "loss", "age", "law", "mixed", "apart", "sent", "refused")
"""The header of the table of replicas."""

_ALIGN = ">>>>>>>>><"


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of that table."""
    refused = ", ".join(f"{count} {why}" for why, count in sorted(row["refused"].items()))
    return (
        str(row["replica"]),
        f"{row['steps']:,}",
        f"{row['steps_per_second']:.1f}",
        "" if row["loss"] is None else f"{row['loss']:.4f}",
        f"{row['version_age']:.1f}" if row["exchanges"] else "",
        "" if row["law"] is None else f"{row['law']:.1f}",
        f"{row['exchanges']:,}" if row["exchanges"] else "",
        f"{row['apart']:.1%}" if row["exchanges"] else "",
        format_bytes(row["sent_bytes"]),
        refused,
    )


def status_text(statuses: "Statuses", options: "RunOptions") -> str:
    """The live table."""
    ages = version_ages(statuses)
    rows = [
        {"replica": index, **_row(status, ages[index], _pace(statuses), options), "refused": status["refused"]}
        for index, status in sorted(statuses.items())
    ]
    lines = [*table([CELLS, *map(cells, rows)], _ALIGN)]
    for index, status in sorted(statuses.items()):
        lines += [f"replica {index} leaves {peer} alone: {why}" for peer, why in status["ignored"].items()]
    return "\n".join(lines)
