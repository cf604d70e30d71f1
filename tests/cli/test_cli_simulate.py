"""`baechi replicas simulate` as an outside check calls it."""

import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

H127 = sum(1 / k for k in range(1, 128))


def test_the_law_and_what_is_measured(cli: "Cli") -> None:
    ran = cli(
        *[
            "replicas",
            "simulate",
            "--peers",
            "128",
            "--capacity",
            "1.0",
            "--update-rate",
            "1.0",
            "--time",
            "200",
            "--seed",
            "0",
            "--json",
        ]
    )
    assert ran.code == 0
    assert ran.data["schema"] == "baechi/replicas-simulate/1"
    assert ran.data["law"] == pytest.approx(H127)
    assert ran.data["mean_staleness"] == pytest.approx(H127, rel=0.05)
    assert cli(*["replicas", "simulate", "--json"]).out == ran.out  # the defaults, and the same numbers


@pytest.mark.parametrize(
    ("flags", "law"),
    [
        ("--compute-offset 0.5", H127 / 1.5),
        ("--capacity log", H127 / 4.852),
        ("--mixing symmetric", H127 / 2),
        ("--topology ring --peers 16", 8.0),
        ("--topology torus --peers 16", None),
        ("--opportunistic --peers 16 --time 2000", 15.0),
    ],
)
def test_laws_of_other_settings(cli: "Cli", flags: str, law: float | None) -> None:
    data = cli("replicas", "simulate", *flags.split(), "--json").data
    assert data["law"] == (law if law is None else pytest.approx(law, rel=1e-4))
    if law is not None:
        assert data["mean_staleness"] == pytest.approx(law, rel=0.08)


@pytest.mark.parametrize(
    "flags",
    [
        "--peers 64",
        "--peers 30 --rounds 3 --dimension 2 --mixing push-sum",
        "--sweep 4,8",
        "--peers 4 --train --time 10 --straggler 0=4 --delay exp:0.1 --drop 0.1 --churn crash:1@3 --churn restart:1@5",
        "--peers 4 --algorithm draco --time 10 --max-delay 0.5 --delay exp:0.5 --partition 2-4:0,1|2,3",
    ],
)
def test_text_fits_eighty_columns(cli: "Cli", flags: str) -> None:
    ran = cli("replicas", "simulate", *flags.split())
    assert ran.code == 0
    assert "staleness" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


def test_a_file_gives_options_and_flags_win(cli: "Cli", tmp_path: Path) -> None:
    config = tmp_path / "world.toml"
    config.write_text('peers = 4\ntime = 10\nstraggler = ["0=4"]\ncompute-time = "0.5"\ndrop = 0.2\n')
    data = cli("replicas", "simulate", "--config", config, "--peers", 3, "--json").data
    assert data["engine"] == "events"
    assert [r["steps"] for r in data["replicas"]] == [5, 20, 20]
    assert data["messages"]["dropped"] > 0
    config.write_text("peeers = 4\n")
    ran = cli("replicas", "simulate", "--config", config)
    assert ran.code == 2
    assert "did you mean 'peers'" in ran.err


def test_a_simulation_that_was_stopped_goes_on(cli: "Cli", tmp_path: Path) -> None:
    flags = ["replicas", "simulate", "--peers", 4, "--drop", 0.1, "--every", 1, "--json"]
    whole = cli(*flags, "--time", 20).data
    state = tmp_path / "state"
    cli(*flags, "--time", 8, "--checkpoint", state, "--resume")  # there is none yet: it begins
    ran = cli(*flags, "--time", 20, "--checkpoint", state, "--resume")
    assert "going on at 8 s" in ran.err
    assert ran.data == whole


def test_a_simulation_that_was_killed_goes_on_as_if_it_had_not_been(cli: "Cli", tmp_path: Path) -> None:
    state = tmp_path / "state"
    flags = ["replicas", "simulate", "--peers", "6", "--delay", "exp:0.1", "--time", "300", "--every", "0.5", "--json"]
    command = [sys.executable, "-m", "baechi", *flags, "--checkpoint", str(state)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 60
        while not state.exists() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.3)
        process.kill()
    ran = cli(*flags, "--checkpoint", state, "--resume")
    assert "going on at" in ran.err
    assert ran.data == cli(*flags).data


def test_steps_that_are_too_long_are_shown_and_not_written_as_numbers(cli: "Cli") -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of numpy, about numbers without end
        ran = cli("replicas", "simulate", "--peers", 3, "--eta", 1e6, "--time", 100, "--json")
        assert ran.code == 0
        assert ran.data["loss"] is None
        assert cli("replicas", "simulate", "--peers", 3, "--eta", 1e6, "--time", 100).code == 0


def test_draco_drops_by_reason_and_warns_of_the_bias(cli: "Cli") -> None:
    flags = "replicas simulate --peers 6 --time 20 --max-delay 0.5 --max-received 3 --delay exp:0.5 --json"
    data = cli(*flags.split()).data
    assert data["algorithm"] == "draco"
    assert data["refused"]["too old"] > 0
    assert data["refused"]["over cap"] > 0


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        ("--peers 1", "B841"),
        ("--topology star", "B841"),
        ("--topology torus --peers 7", "B841"),
        ("--capacity fast", "B108"),
        ("--capacity 0", "B108"),
        ("--time 0", "B108"),
        ("--time nan", "B108"),
        ("--time 5 --rounds 5", "B108"),
        ("--update-rate 0", "B842"),
        ("--mixing shout", "B842"),
        ("--drop 1", "B843"),
        ("--compute-time exp:x", "B840"),
        ("--compute-time 0", "B843"),
        ("--churn boom", "B843"),
        ("--partition 1", "B843"),
        ("--straggler 1", "B108"),
        ("--straggler 999=2", "B108"),
        ("--every 0", "B846"),
        ("--algorithm sgd", "B846"),
        ("--period 0", "B845"),
        ("--resume", "B108"),
        ("--sweep 1", "B108"),
        ("-o plot.html", "B108"),
        ("--train --opportunistic", "B108"),
        ("--sources 999", "B842"),
        ("--config /nowhere.toml", "B110"),
    ],
)
def test_misuse_is_told(cli: "Cli", flags: str, code: str) -> None:
    ran = cli("replicas", "simulate", *flags.split())
    assert (ran.code, ran.out) == (2, "")
    assert f"error[{code}]" in ran.err
