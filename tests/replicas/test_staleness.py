"""Advice on stale gradients against the closed forms behind it and runs of asynchronous SGD."""

import json
import math
from pathlib import Path

import pytest

from baechi.cli.main import main
from baechi.errors import BaechiError
from baechi.replicas.asgd import growth, race
from baechi.replicas.delays import Erlang, Histogram, fixed
from baechi.replicas.staleness import MOST_WORKERS, advise, fastest_workers, largest_workers
from baechi.replicas.staleness_text import advice_text


def test_the_largest_number_of_workers_is_that_of_the_discrete_limit() -> None:
    for gain in (0.04, 0.1, 0.3, 0.9, 1.5):
        most = largest_workers(fixed(1.0), gain)
        assert gain < 2 * math.sin(math.pi / (2 * (2 * most - 1)))
        assert gain >= 2 * math.sin(math.pi / (2 * (2 * most + 1)))
    assert largest_workers(fixed(1.0), 2.0) == 0
    assert largest_workers(fixed(1.0), 1e-4) == MOST_WORKERS


def test_more_workers_are_not_always_faster() -> None:
    found = fastest_workers(fixed(1.0), 0.05, 1.0, 1.0)
    assert found is not None
    assert found.product == pytest.approx(1 / math.e, rel=0.1)
    rates = [growth(race([fixed(1.0)] * m, 3000 * m, seed=0), 0.05) for m in (2, found.workers, 25)]
    assert rates[1] < min(rates[0], rates[2])


def test_what_is_called_stable_converges_and_the_rest_diverges() -> None:
    for law in (fixed(0.2), Erlang(3, 0.2), Histogram((0.1, 0.5), (3, 1))):
        for step in (0.02, 0.3):
            advice = advise(law, 2.0, step_size=step, workers=8)
            assert advice.asked is not None
            grown = growth(race([law] * 8, 20_000, seed=1), 2.0 * step)
            near = abs(advice.asked.product / advice.asked.limit - 1) < 0.05
            assert near or advice.asked.is_stable == (grown < 0)


def test_the_flattest_direction_sets_the_pace() -> None:
    alone, both = (advise(fixed(0.1), 4.0, step_size=0.005, workers=4, least=least).asked for least in (4.0, 0.04))
    assert alone is not None
    assert both is not None
    assert both.rate == pytest.approx(0.005 * 0.04 * 4 / 0.1, rel=0.01)
    assert alone.rate > 50 * both.rate


def test_advice_is_within_the_terminal() -> None:
    for law in (fixed(0.0123), Erlang(1, 3.0, 0.5), Histogram((0.1, 0.5), (3, 1))):
        text = advice_text(advise(law, 123456.0, step_size=1.234567e-7, workers=17))
        assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("curvature", "options"),
    [
        (0.0, {}),
        (-1.0, {}),
        (math.nan, {}),
        (1.0, {"least": 2.0}),
        (1.0, {"least": 0.0}),
        (1.0, {"step_size": 0.0}),
        (1.0, {"step_size": math.inf}),
        (1.0, {"workers": 0}),
        (1.0, {"workers": MOST_WORKERS + 1}),
    ],
)
def test_numbers_that_make_no_question_are_refused(curvature: float, options: dict[str, float]) -> None:
    with pytest.raises(BaechiError) as error:
        advise(fixed(1.0), curvature, **options)  # type: ignore[arg-type]
    assert error.value.code == "B850"


def test_the_command_answers_yes_and_no(capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["replicas", "plan", "--curvature", "4", "--delay", "fixed:0.1", "--workers", "16"]
    assert main([*ask, "--step-size", "0.025"]) == 0
    assert "16 workers, step size 0.025: it converges" in capsys.readouterr().out
    assert main([*ask, "--step-size", "0.026"]) == 1
    assert "16 workers, step size 0.026: it diverges" in capsys.readouterr().out


def test_the_command_prints_plain_data(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "delays.json"
    path.write_text('{"delays_seconds": [0.1, 0.1, 0.3]}')
    assert main(["replicas", "plan", "--curvature", "4", "--delay", str(path), "--step-size", "0.01", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "baechi/replicas-plan/1"
    assert found["delay_seconds"] == pytest.approx(0.5 / 3)
    assert found["stable"] is None
    assert found["largest_workers"] >= found["fastest_workers"]["workers"] > 1
    assert found["settings"][0]["rate"] is None  # one update ends it


def test_the_command_measures_a_target(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--set", "width=8", "--set", "inputs=6", "--set", "depth=1", "--batch", "4"]
    assert main(["replicas", "plan", "models:mlp", *sizes, "--workers", "2", "--json"]) in (0, 1)
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["curvature"] > 0
    assert found["asked"]["step_size"] == pytest.approx(0.5)
    assert "momentum counted in" in told.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], "B108"),
        (["--curvature", "1"], "B108"),
        (["--curvature", "0", "--delay", "exp:1"], "B108"),
        (["--curvature", "1", "--delay", "exp"], "B840"),
        (["--curvature", "1", "--delay", "none.json"], "B851"),
        (["--curvature", "1", "--delay", "exp:1", "--least-curvature", "2"], "B850"),
        (["models:none"], "B101"),
    ],
)
def test_bad_words_are_said(words: list[str], code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replicas", "plan", *words]) == 2
    assert f"error[{code}]" in capsys.readouterr().err
