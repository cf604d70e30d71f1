"""Ends what a run started when the run is gone, however it went: a killed driver leaves no process behind.

It is started with the driver's pipe as its input, which ends with the driver. Until then it looks now and then which
processes Ray has below the driver, for later nobody can tell whose they were.
"""

import contextlib
import select
import subprocess
import sys

import psutil

__all__ = ["Reaper"]

_POLL_SECONDS = 1.0
_PATIENCE_SECONDS = 2.0
_DAEMONS = ("gcs_server", "raylet")


class Reaper:
    """Started before the processes of a run; `close` ends those that are left."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "baechi.replicas.cluster.reaper", str(psutil.Process().pid)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def close(self) -> None:
        """End what is left."""
        self._process.communicate()


def _below(driver: psutil.Process) -> set[psutil.Process]:
    """Ray's processes of a driver; a process is known by its number and the time when it began."""
    found: set[psutil.Process] = set()
    with contextlib.suppress(psutil.Error):
        for child in driver.children():
            if child.name() in _DAEMONS:
                found |= {child, *child.children(recursive=True)}
    return found


def _watch(driver: psutil.Process) -> None:
    before, seen = _below(driver), set[psutil.Process]()
    while not select.select([sys.stdin], [], [], _POLL_SECONDS)[0]:
        seen |= _below(driver)
    _, left = psutil.wait_procs(seen - before, _PATIENCE_SECONDS)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()


if __name__ == "__main__":
    with contextlib.suppress(psutil.NoSuchProcess):
        _watch(psutil.Process(int(sys.argv[1])))
