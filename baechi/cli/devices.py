"""List the devices that have a name, and what this machine is; or measure it and write a cluster file."""

import argparse
import platform
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any

from baechi.cli.arguments import positive
from baechi.cli.output import emit, emit_json, progress, say
from baechi.cli.subject import local_rates, restart_tuned
from baechi.errors import BaechiError

if TYPE_CHECKING:
    from baechi.ir.cluster import Cluster
    from baechi.profile.machine import Machine

__all__ = ["configure", "execute"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--measure", action="store_true", help="measure this machine's processor again")
    parser.add_argument("-o", "--output", metavar="FILE", help="fit rates to measurements and write a cluster, in TOML")
    parser.add_argument(
        "--devices", type=positive, metavar="K", help="of the processor (default: the GPUs, or one for each core)"
    )
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
    from baechi.files import write_atomic
    from baechi.profile.calibrate import calibrate
    from baechi.report.cluster_text import cluster_toml
    from baechi.report.machine_text import fits_text

    cluster = _here(args.devices, args.memory)
    with progress(f"measuring {', '.join(d.name for d in cluster.devices)}"):
        fits = calibrate(cluster)
    cluster = fits.applied(cluster)
    head = f"{platform.node()}, {date.today().isoformat()}, by baechi devices -o"
    write_atomic(args.output, cluster_toml(cluster, fits, head))
    say(f"wrote {args.output}: use it as --cluster {args.output}")
    if args.json:
        emit_json({"schema": "baechi/fit/2", "cluster": cluster.to_dict(), "fits": fits.to_dict()})
    else:
        emit(fits_text(fits))
    return 0


def _here(count: int | None, memory: str | None) -> "Cluster":
    """The GPUs of this machine, unless so many devices of its processor are asked for."""
    from baechi.config import cores, local_cluster, resize
    from baechi.profile.devices import cuda_cluster

    gpus = cuda_cluster() if count is None else None
    if gpus is not None:
        return resize(gpus, memory=memory)
    return local_cluster(count or cores(), memory)


def _to_dict(machine: "Machine") -> dict[str, Any]:
    from baechi.config import presets

    return {
        "schema": "baechi/devices/1",
        "presets": [asdict(preset) for preset in presets().values()],
        "this_machine": asdict(machine),
    }
