"""What each worker of a run does: a script, or a function."""

import contextlib
import runpy
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from baechi.errors import BaechiError

__all__ = ["Body", "Ended"]


class Ended(NamedTuple):
    """How a worker ended; `code` and `what` are empty when all is well."""

    code: str = ""
    what: str = ""
    help: str = ""


@dataclass(frozen=True, slots=True)
class Body:
    """What is run.

    Attributes:
        script: its path; empty for a function.
        arguments: of the script.
        function: without arguments.
        logs: directory where each worker's output goes.
        threads: of torch in each worker; 0 for torch's own choice.
    """

    script: str = ""
    arguments: Sequence[str] = ()
    function: Callable[[], Any] | None = None
    logs: str = ""
    threads: int = 0

    def run(self, name: str) -> Ended:
        """Run it in this process.

        Args:
            name: of the worker's log.
        """
        path = Path(self.logs) / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1) as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            return self._run(path)

    def _run(self, log: Path) -> Ended:
        if self.threads:
            import torch

            torch.set_num_threads(self.threads)
        try:
            if self.function is not None:
                self.function()
            else:
                self._run_script()
        except SystemExit as end:
            return Ended() if end.code in (None, 0) else Ended("B807", f"it ended with status {end.code}", f"see {log}")
        except BaechiError as error:
            traceback.print_exc()
            return Ended(error.code, error.what, error.help)
        except Exception as error:  # noqa: BLE001 - whatever a person's script raises
            traceback.print_exc()
            return Ended("B807", f"{type(error).__name__}: {error}", f"see {log}")
        return Ended()

    def _run_script(self) -> None:
        sys.argv = [self.script, *self.arguments]
        sys.path.insert(0, str(Path(self.script).parent))
        runpy.run_path(self.script, run_name="__main__")
