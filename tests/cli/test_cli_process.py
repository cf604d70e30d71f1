"""What holds of the process: light imports, exit codes, pipes, talk and data apart."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from baechi import __version__
from baechi.cli import main as entry
from baechi.cli import place
from baechi.cli.output import progress

ROOT = Path(__file__).parents[2]
HEAVY = {"numpy", "numba", "torch", "rich", "networkx", "ortools", "tensorflow", "psutil"}


def baechi(*argv: str, **options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "baechi", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("argv", [["--version"], ["--help"], ["place", "--help"], ["compare", "--help"]])
def test_what_only_talks_imports_nothing_heavy(argv: list[str]) -> None:
    code = (
        "import sys\nfrom baechi.cli.main import main\n"
        f"try: main({argv})\nexcept SystemExit as end: assert not end.code\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout
    assert HEAVY.isdisjoint(ran.stderr.split())


def test_version() -> None:
    ran = baechi("--version")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"baechi {__version__}\n", "")


def test_help_is_80_columns_wide() -> None:
    for argv in (["--help"], ["place", "--help"], ["compare", "--help"], ["run", "--help"]):
        assert max(map(len, baechi(*argv).stdout.splitlines())) <= 80


def test_a_full_disk_under_stdout(fork_join: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "baechi", "devices", "--json"]
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 2
    assert "error[B404]: cannot write to standard output" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_reader_that_leaves_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        command = [sys.executable, "-m", "baechi", "devices"]
        ran = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    assert (ran.returncode, ran.stderr) == (141, "")


def test_an_own_bug_is_one_line(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> int:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(place, "execute", broken)
    ran = cli("place", "models:mlp")
    assert ran.code == 101
    assert ran.err.splitlines() == [
        "error[B999]: this is a bug of baechi: ZeroDivisionError: oops",
        "  help: set BAECHI_DEBUG=1 for the traceback",
    ]
    monkeypatch.setenv("BAECHI_DEBUG", "1")
    assert "Traceback" in cli("place", "models:mlp").err


def test_interrupted(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(place, "execute", interrupted)
    assert cli("place", "models:mlp").code == 130


def test_progress_needs_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baechi.cli.output._PATIENCE_SECONDS", 0.0)
    with progress("working"):
        pass
    assert capsys.readouterr().err == ""


def test_progress_is_wiped_from_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr("baechi.cli.output._PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("working"):
        for thread in threading.enumerate():
            if isinstance(thread, threading.Timer):
                thread.join()
    err = capsys.readouterr().err
    assert "working …" in err
    assert err.endswith("\r\x1b[K")


def test_run_starts_anew_with_a_tuned_allocator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, str]] = []

    def execve(_path: str, _argv: list[str], environment: dict[str, str]) -> None:
        started.append(environment)
        raise SystemExit(0)

    monkeypatch.setattr("os.execve", execve)
    monkeypatch.delenv("MALLOC_MMAP_MAX_", raising=False)
    monkeypatch.setattr(sys, "argv", ["baechi", "run", str(tmp_path / "no.json")])
    with pytest.raises(SystemExit):
        entry.main()
    assert started[0]["MALLOC_MMAP_MAX_"] == "0"
    for name, value in started[0].items():
        monkeypatch.setenv(name, value)
    assert entry.main() == 2  # no second start: the plan is looked for
