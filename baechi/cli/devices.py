"""List the devices that have a name, and what this machine is; or measure it and write a cluster file."""

import argparse
import os
import platform
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any

from baechi.cli.arguments import positive
from baechi.cli.output import emit, emit_json, progress, say
from baechi.cli.subject import local_rates, restart_tuned
from baechi.errors import BaechiError

if TYPE_CHECKING:
    from baechi.profile.machine import Machine

__all__ = ["configure", "execute"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--measure", action="store_true", help="measure this machine's processor again")
    parser.add_argument("-o", "--output", metavar="FILE", help="fit rates to measurements and write a cluster, in TOML")
    parser.add_argument("--devices", type=positive, metavar="K", help="of the cluster (default: one for each core)")
    parser.add_argument(
        "--memory", metavar="SIZE", help="of each: 8GiB or 30%%; without, an equal share of what is free"
    )


def execute(args: argparse.Namespace) -> int:
    """Print the table."""
    from baechi.config import presets
    from baechi.report.machine_text import devices_text

    if (args.devices or args.memory) and not args.output:
        raise BaechiError("B108", "--devices and --memory are of the cluster that -o FILE writes", help="add -o FILE")
    if args.output:
        return _write_cluster(args)
    machine = local_rates(refresh=args.measure)
    if args.json:
        emit_json(_to_dict(machine))
    else:
        emit(devices_text(tuple(presets().values()), machine))
    return 0


def _write_cluster(args: argparse.Namespace) -> int:
    restart_tuned(args)
    from baechi.config import local_cluster
    from baechi.files import write_atomic
    from baechi.profile.calibrate import calibrate
    from baechi.report.cluster_text import cluster_toml
    from baechi.report.machine_text import fits_text

    count = args.devices or len(os.sched_getaffinity(0))
    local_cluster(count, args.memory)  # what is wrong with the arguments is said before anything takes time
    with progress("measuring this machine's processor"):
        found = calibrate()
    cluster = local_cluster(count, args.memory, found.rates)
    fits = {"compute": found.compute, "memory": found.memory} | ({} if found.link is None else {"link": found.link})
    head = f"{platform.node()}, {date.today().isoformat()}, by baechi devices -o"
    write_atomic(args.output, cluster_toml(cluster, fits, head))
    say(f"wrote {args.output}: use it as --cluster {args.output}")
    if args.json:
        emit_json(
            {"schema": "baechi/fit/1", "cluster": cluster.to_dict(), "fits": {k: asdict(f) for k, f in fits.items()}}
        )
    else:
        emit(fits_text(fits))
    return 0


def _to_dict(machine: "Machine") -> dict[str, Any]:
    from baechi.config import presets

    return {
        "schema": "baechi/devices/1",
        "presets": [asdict(preset) for preset in presets().values()],
        "this_machine": asdict(machine),
    }
