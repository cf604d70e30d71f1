"""A plan in a notebook: a table and a picture, without a script."""

from typing import NamedTuple

from baechi.ir.op import PHASES
from baechi.ir.timeline import Timeline
from baechi.report.files import Step
from baechi.report.page.palette import PHASES as TONES
from baechi.report.page.palette import TRANSFER
from baechi.report.page.write import templates
from baechi.report.text import head

__all__ = ["notebook_html"]

_PIXELS = 640
_ROW = 22


class _Block(NamedTuple):
    """Time in which a device does one thing, in pixels."""

    x: float
    y: float
    width: float
    height: float
    colour: str


def notebook_html(step: Step) -> str:
    """What ``_repr_html_`` of a plan shows: devices, their load and memory, and a timeline of a few hundred blocks."""
    plan, timeline = step.now, step.timeline
    gap = plan.gap if plan.bounds.step_seconds > 0 else None
    return (
        templates()
        .get_template("notebook.html.jinja")
        .render(
            head=head(step.graph, plan.cluster),
            plan=plan,
            gap=gap,
            step_seconds=timeline.step_seconds,
            busy=timeline.busy_seconds,
            peak=timeline.peak_bytes,
            blocks=_blocks(step),
            names=[d.name for d in plan.cluster.devices],
            width=_PIXELS,
            row=_ROW,
        )
    )


def _blocks(step: Step) -> list[_Block]:
    """Ops of one phase, or transfers, that follow each other closer than a pixel are one block."""
    timeline: Timeline = step.timeline
    row = {d.name: k * _ROW for k, d in enumerate(step.plan.cluster.devices)}
    scale = _PIXELS / timeline.step_seconds if timeline.step_seconds else 0.0
    colour = {phase: TONES[2 * k] for k, phase in enumerate(PHASES)}
    spans = [(s.device, colour[step.graph.op[s.op].phase], s.start, s.end) for s in timeline.ops if s.end > s.start]
    spans += [(s.destination, TRANSFER, s.start, s.end) for s in timeline.transfers if s.end > s.start]
    blocks: list[_Block] = []
    last: dict[tuple[str, bool], int] = {}
    for device, paint, start, end in sorted(spans, key=lambda s: s[2]):
        x, right, lane = start * scale, end * scale, (device, paint == TRANSFER)
        before = blocks[last[lane]] if lane in last else None
        if before is not None and before.colour == paint and x - (before.x + before.width) < 1:
            blocks[last[lane]] = before._replace(width=max(before.width, right - before.x))
            continue
        last[lane] = len(blocks)
        y, height = (row[device] + 15, 4) if lane[1] else (row[device] + 2, 12)
        blocks.append(_Block(x, y, right - x, height, paint))
    return blocks
