"""What a run of clusters came to, as data and as text."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from baechi.report.layout import fields, table
from baechi.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from baechi.replicas.cluster.crew_driver import CrewOutcome, PeerStatuses
    from baechi.replicas.cluster.crew_session import CrewSession

__all__ = ["CREW_CELLS", "crew_cells", "crew_data", "crew_status_text", "crew_summary", "crew_text"]

_LAST = 20
CREW_CELLS = ("peer", "cluster", "stage", "batches", "each s", "busy", "late", "old", "sent", "in rings")
"""The header of the table of peers: `late` is the greatest staleness, `old` the most old weights that were kept."""

_ALIGN = "<>>>>>>>>>"


def crew_data(outcome: "CrewOutcome", session: "CrewSession") -> dict[str, Any]:
    """What happened, as plain data."""
    layout = outcome.layout
    rates = () if layout is None else layout.rates
    clusters = [
        {
            "cluster": c,
            "peers": [session.nodes[p].name for p in peers],
            "under_way": layout.under_way[c] if layout is not None else 0,
            "predicted_microbatches_per_second": rates[c] if math.isfinite(rates[c]) else None,
            "whole": c not in outcome.gone,
            **_losses(outcome.statuses[peers[-1]]),
        }
        for c, peers in enumerate(() if layout is None else layout.peers)
    ]
    rows = []
    for i, status in sorted(outcome.statuses.items()):
        ended = outcome.ended.get(i)
        fault = f"error[{ended.code}]: {ended.what}" if ended is not None and ended.code else None
        rows.append({**{k: v for k, v in status.items() if k not in ("losses", "pid")}, "error": fault})
    return {
        "schema": "baechi/replicas-crews/1",
        "seconds": outcome.seconds,
        "average_every": session.average_every,
        "clusters": clusters,
        "peers": rows,
    }


def _losses(status: Mapping[str, Any]) -> dict[str, Any]:
    losses = [loss for _, loss in status["losses"] if math.isfinite(loss)]
    return {
        "microbatches": status["microbatches"],
        "microbatches_per_second": status["microbatches_per_second"],
        "averages": status["averages"],
        "first_loss": losses[0] if losses else None,
        "loss": sum(losses[-_LAST:]) / len(losses[-_LAST:]) if losses else None,
        "losses": [[micro, loss if math.isfinite(loss) else None] for micro, loss in status["losses"]],
    }


def crew_summary(data: Mapping[str, Any]) -> list[str]:
    """What is to be said of each cluster."""
    count = len(data["clusters"])
    what = f"{count} of {len(data['peers'])} peers" + (f", averaged every {data['average_every']}" if count > 1 else "")
    pairs = [("clusters", what), ("took", format_seconds(data["seconds"]))]
    for one in data["clusters"]:
        rate = f"{one['microbatches']:,} micro-batches, {one['microbatches_per_second']:.1f} a second"
        loss = "" if one["loss"] is None else f", loss {one['first_loss']:.4f} -> {one['loss']:.4f}"
        pairs.append((f"cluster {one['cluster'] + 1}", rate + loss))
    return fields(pairs)


def crew_text(data: Mapping[str, Any]) -> str:
    """What happened, for people."""
    lines = [*crew_summary(data), "", *table([CREW_CELLS, *map(crew_cells, data["peers"])], _ALIGN)]
    lines += [f"peer {row['peer']}: {row['error']}" for row in data["peers"] if row["error"]]
    return "\n".join(lines)


def crew_status_text(statuses: "PeerStatuses") -> str:
    """The live table."""
    return "\n".join(table([CREW_CELLS, *(crew_cells(status) for _, status in sorted(statuses.items()))], _ALIGN))


def crew_cells(row: Mapping[str, Any]) -> Sequence[str]:
    """A row of that table."""
    if row["stage"] is None:
        return (row["peer"], *[""] * (len(CREW_CELLS) - 1))
    return (
        row["peer"],
        str(row["cluster"] + 1),
        str(row["stage"] + 1),
        f"{row['microbatches']:,}",
        f"{row['microbatches_per_second']:.1f}",
        f"{row['busy']:.0%}",
        str(row["staleness"]),
        str(row["old_weights"]),
        format_bytes(row["sent_bytes"]),
        format_bytes(row["ring_bytes"]),
    )
