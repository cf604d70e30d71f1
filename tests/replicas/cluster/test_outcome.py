"""What is said of a run, and its page."""

import json
from collections import Counter
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from baechi.cli.main import main
from baechi.replicas.cluster.body import Ended
from baechi.replicas.cluster.outcome import age_law, outcome_data, outcome_text, status_text
from baechi.replicas.cluster.run import Outcome
from baechi.replicas.cluster.settings import run_options


def status(peer: int, **changes: Any) -> dict[str, Any]:
    return {
        "peer": peer,
        "incarnation": 0,
        "steps": 1200,
        "rate": 60.0,
        "losses": [(1, 2.5), (2, float("nan")), (1200, 0.25)],
        "version": 1200,
        "reflects": {0: 1190, 1: 1180, peer: 1200},
        "mixed": 40,
        "refused": {"replayed": 2},
        "refused_by_peer": {1 - peer: Counter(replayed=2)},
        "ignored": {},
        "apart": 0.0123,
        "exchange_rate": 3.0,
        "exchange_seconds": [0.004, 0.006, 0.005],
        "step_intervals": [0.02, 0.03],
        "sent_bytes": 3 << 20,
        **changes,
    }


def outcome() -> Outcome:
    return Outcome(
        {0: status(0), 1: status(1, refused={}, refused_by_peer={})},
        {0: Ended(), 1: Ended("B807", "it ended with status 3", "see its log")},
        {0: 2, 1: 0},
        {},
        {0: 12.0},
        34.5,
    )


def test_the_text_says_what_became_of_each() -> None:
    text = outcome_text(outcome_data(outcome(), run_options(flags={"replicas": 2})))
    assert text.splitlines() == [
        "replicas    2, symmetric mixing, complete, up to 5 exchanges a second",
        "took        34.5 s",
        "exchange    5.00 ms there and back, median of 6",
        "",
        "replica  steps  steps/s    loss   age   law  mixed  apart      sent  refused",
        "      0  1,200     60.0  1.3750  12.0  10.0     40   1.2%  3.00 MiB  2 replayed",
        "      1  1,200     60.0  1.3750  20.0  10.0     40   1.2%  3.00 MiB",
        "replica 0 died and came back 2 times",
        "replica 1: error[B807]: it ended with status 3",
    ]
    assert max(map(len, text.splitlines())) <= 80


def test_the_data_is_json_without_nan() -> None:
    data = outcome_data(outcome(), run_options(flags={"replicas": 2}))
    again = json.loads(json.dumps(data, allow_nan=False))
    assert again["replicas"][0]["losses"] == [[1, 2.5], [2, None], [1200, 0.25]]
    assert again["replicas"][0]["refused_by_peer"] == {"1": {"replayed": 2}}
    assert again["exchange_seconds"] == [0.004, 0.006, 0.005] * 2
    assert again["delays_seconds"] == [0.02, 0.03] * 2, "what baechi replicas plan --delay reads"


def test_the_live_table_says_who_is_left_alone() -> None:
    statuses = {0: status(0, ignored={1: "no answer 2 times, 0.7 s to go"}), 1: status(1)}
    text = status_text(statuses, run_options(flags={"replicas": 2}))
    assert text.splitlines()[-1] == "replica 0 leaves 1 alone: no answer 2 times, 0.7 s to go"


def test_the_law_is_that_of_the_paper() -> None:
    """mu H_(n-1) / lambda; a swap tells both sides."""
    assert age_law(5, 2.0, 4.0, "pull") == pytest.approx(2.0 * (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4.0)
    assert age_law(5, 2.0, 4.0, "symmetric") == pytest.approx(2.0 * (1 + 1 / 2 + 1 / 3 + 1 / 4) / 8.0)
    assert age_law(1, 2.0, 4.0, "pull") is None
    assert age_law(5, 2.0, 0.0, "pull") is None


def test_report_writes_a_page_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, page = tmp_path / "run.json", tmp_path / "run.html"
    path.write_text(json.dumps(outcome_data(outcome(), run_options(flags={"replicas": 2}))), encoding="utf-8")
    assert main(["report", str(path), "-o", str(page)]) == 0
    html = unescape(page.read_text(encoding="utf-8"))
    assert "default-src 'none'" in html
    assert "<h1>2 replicas that gossip</h1>" in html
    assert "<td>replayed</td>" in html


@pytest.mark.parametrize(
    ("change", "code"),
    [(lambda text: text[:-9], "B402"), (lambda text: text.replace('"replicas"', '"copies"'), "B809")],
)
def test_a_broken_file_of_a_run_is_one_error(
    change: Any, code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, page = tmp_path / "run.json", tmp_path / "run.html"
    text = json.dumps(outcome_data(outcome(), run_options(flags={"replicas": 2})))
    path.write_text(change(text), encoding="utf-8")
    assert main(["report", str(path), "-o", str(page)]) == 2
    assert f"error[{code}]" in capsys.readouterr().err
    assert not page.exists()
