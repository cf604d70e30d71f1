"""Ray, on this machine for as long as a run takes, or wherever there is a cluster."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import Any

from baechi.errors import BaechiError
from baechi.replicas.cluster.reaper import Reaper

__all__ = ["cluster", "load_ray"]

_STORE_BYTES = 1 << 30
_TOKEN = secrets.token_hex(32)  # Ray reads it once in the life of a process


def load_ray() -> Any:
    """Ray itself.

    Raises:
        BaechiError: B805 when it is not installed.
    """
    try:
        import ray
    except ImportError:
        raise BaechiError("B805", "Ray is not installed", help="pip install 'baechi[replicas]'") from None
    return ray


@contextlib.contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """Ray, started here and ended after, or that of an address; gives the module.

    A cluster of one's own has a token that nobody else knows: who does not have it gets nothing.

    Args:
        address: ``auto``, ``host:port`` or ``ray://…`` of a cluster that runs; None for one of one's own.

    Raises:
        BaechiError: B805 when Ray is not installed, B806 when it cannot be reached.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        os.environ.setdefault("RAY_AUTH_TOKEN", _TOKEN)
    ray = load_ray()
    reaper = Reaper() if address is None else None
    try:
        with _connected(ray, address):
            yield ray
    finally:
        if reaper is not None:
            reaper.close()


@contextlib.contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    common = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "baechi"}
    try:
        if address is None:
            own = {"address": "local", "include_dashboard": False, "object_store_memory": _STORE_BYTES}
            ray.init(**own, **common)
        else:
            ray.init(address=address, **common)
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        help = "is the cluster up, and is its token in RAY_AUTH_TOKEN?" if address else "see the logs in /tmp/ray"
        raise BaechiError("B806", f"no Ray at {address or 'this machine'}: {first}", help=help) from error
    try:
        yield
    finally:
        ray.shutdown()
