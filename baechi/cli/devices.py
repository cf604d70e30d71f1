"""List the devices that have a name, and what this machine is."""

import argparse
from typing import TYPE_CHECKING, Any

from baechi.cli.output import emit, emit_json
from baechi.cli.subject import local_rates

if TYPE_CHECKING:
    from baechi.profile.machine import Machine

__all__ = ["configure", "execute"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--measure", action="store_true", help="measure this machine's processor again")


def execute(args: argparse.Namespace) -> int:
    """Print the table."""
    from baechi.config import presets
    from baechi.report.machine_text import devices_text

    machine = local_rates(refresh=args.measure)
    if args.json:
        emit_json(_to_dict(machine))
    else:
        emit(devices_text(tuple(presets().values()), machine))
    return 0


def _to_dict(machine: "Machine") -> dict[str, Any]:
    from dataclasses import asdict

    from baechi.config import presets

    return {
        "schema": "baechi/devices/1",
        "presets": [asdict(preset) for preset in presets().values()],
        "this_machine": asdict(machine),
    }
