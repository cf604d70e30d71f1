"""Train a target's plain model in a process of its own, held to a memory cap.

The process reads one JSON object from stdin and writes one to stdout; what the person's own code
prints goes to stderr.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from baechi.cli.children import child_environment
from baechi.errors import BaechiError
from baechi.jobs import DEFAULT_FRAMEWORK, host_of
from baechi.units import format_bytes

__all__ = ["PlainOutcome", "main", "run_plain_apart"]

_LAST_WORDS = 3


@dataclass(frozen=True, slots=True)
class PlainOutcome:
    """How a plain run went.

    Attributes:
        losses: of each step, those of the warm-up first.
        seconds: of each timed step.
        peak_bytes: of parameters, buffers, inputs, optimiser state and all that a step allocates;
            None when the run died.
        error: how it died; None when it did not.
    """

    losses: tuple[float, ...]
    seconds: tuple[float, ...]
    peak_bytes: int | None
    error: str | None


def run_plain_apart(
    description: Mapping[str, Any],
    *,
    cap_bytes: int | None = None,
    steps: int = 5,
    warmup: int = 1,
    seed: int = 0,
    threads: int = 1,
) -> PlainOutcome:
    """Train the plain model of a target in a new process.

    Args:
        description: of the target, as `Target.description` and `Plan.target` hold it.
        cap_bytes: what the process may take for the model, its inputs and the step; no limit when
            None, nor where the system has none.
        steps, warmup, seed: as `train_plain`.
        threads: of the process.

    Raises:
        BaechiError: B603 for a file of costs, which has no code to run.
    """
    job = {
        "target": dict(description),
        "cap_bytes": cap_bytes,
        "steps": steps,
        "warmup": warmup,
        "seed": seed,
        "threads": threads,
    }
    framework = description.get("framework", DEFAULT_FRAMEWORK)
    environment = child_environment(host_of(framework).environment(cap_bytes, threads))
    command = [sys.executable, "-m", __name__]
    ran = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, env=environment, check=False)
    if ran.returncode != 0 or not ran.stdout:
        return PlainOutcome((), (), None, _cause_of_death(ran.returncode, ran.stderr, cap_bytes))
    data = json.loads(ran.stdout)
    if "code" in data:
        raise BaechiError(data["code"], data["what"], help=data["help"])
    return PlainOutcome(tuple(data["losses"]), tuple(data["seconds"]), data["peak_bytes"], data["error"])


def _cause_of_death(code: int, stderr: str, cap_bytes: int | None) -> str:
    from baechi.backends.limits import is_out_of_memory_text

    if is_out_of_memory_text(stderr):
        return _no_memory(cap_bytes)
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return "; ".join(stderr.strip().splitlines()[-_LAST_WORDS:]) or f"ended with exit code {code}"


def _no_memory(cap_bytes: int | None) -> str:
    return "cannot allocate memory" + ("" if cap_bytes is None else f" under a cap of {format_bytes(cap_bytes)}")


def main() -> int:
    """Do what stdin says; the exit code is 0 whenever there is an answer."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the person's code prints is no answer
    answer = _answer(json.load(sys.stdin))
    json.dump(answer, answers)
    answers.close()
    return 0


def _answer(job: Mapping[str, Any]) -> dict[str, Any]:
    from baechi.backends.limits import explain_out_of_memory

    try:
        return _train(job)
    except BaechiError as error:
        return {"code": error.code, "what": error.what, "help": error.help}
    except Exception as error:  # noqa: BLE001 - the model is the person's: whatever it raises is how the run died
        died = explain_out_of_memory(error, "plain", job["cap_bytes"]) is not None
        text = _no_memory(job["cap_bytes"]) if died else f"{type(error).__name__}: {error}"
        return {"losses": [], "seconds": [], "peak_bytes": None, "error": text}


def _train(job: Mapping[str, Any]) -> dict[str, Any]:
    from baechi.profile.measured import PLAIN_DEVICE
    from baechi.target import load_target, module_of

    described = job["target"]
    framework = described.get("framework", DEFAULT_FRAMEWORK)
    with contextlib.suppress(ImportError):  # `load_target` says what is wrong
        importlib.import_module(module_of(described["target"], framework))  # code is no part of what a step holds
    host_of(framework).hold(job["cap_bytes"], job["threads"])
    target = load_target(
        described["target"],
        batch=described.get("batch"),
        options=described.get("options"),
        framework=framework,
        microbatches=described.get("microbatches", 1),
    )
    if target.job is None:
        raise BaechiError("B603", f"'{target.name}' is a file of costs, not code")
    measured = target.job.train_plain(
        steps=job["steps"], warmup=job["warmup"], seed=job["seed"], microbatches=target.microbatches
    )
    return {
        "losses": list(measured.losses),
        "seconds": list(measured.all_seconds),
        "peak_bytes": measured.peak_bytes[PLAIN_DEVICE],
        "error": None,
    }


if __name__ == "__main__":
    raise SystemExit(main())
