"""Laws of a delay: transforms against integrals over draws, text forms, files, bad input."""

import json
from pathlib import Path

import numpy as np
import pytest

from baechi.errors import BaechiError
from baechi.replicas.delays import Delay, Erlang, Histogram, fixed, parse_delay, read_delays

LAWS = [
    fixed(0.5),
    Erlang(1, 0.5),
    Erlang(3, 0.5, 0.2),
    Histogram((0.1, 0.4), (3, 1)),
    parse_delay("lognormal:0.5:0.3"),
]


@pytest.mark.parametrize("law", LAWS)
def test_a_transform_is_the_mean_over_draws(law: Delay) -> None:
    drawn = law.draw(200_000, np.random.default_rng(1))
    assert drawn.mean() == pytest.approx(law.mean, rel=0.01)
    for s in (0.7 + 0j, -0.5 + 0j, 2j, 0.3 - 4j):
        assert complex(law.transform(np.array(s))) == pytest.approx(np.exp(-s * drawn).mean(), abs=0.01)
        assert complex(law.derivative(np.array(s))) == pytest.approx((-drawn * np.exp(-s * drawn)).mean(), abs=0.01)


def test_many_delays_are_put_together_by_rank() -> None:
    drawn = np.random.default_rng(2).exponential(1.0, 5000)
    law = Histogram.of(drawn.tolist())
    assert len(law.seconds) == 128
    assert law.mean == pytest.approx(drawn.mean())


def test_laws_are_read_from_text() -> None:
    assert parse_delay("fixed:0.25") == parse_delay("0.25") == fixed(0.25)
    assert parse_delay("exp:2") == Erlang(1, 2.0)
    assert parse_delay("0.5+erlang:4:1.0") == Erlang(4, 1.0, 0.5)
    assert parse_delay("hist:0.1=3,0.5=1") == Histogram((0.1, 0.5), (0.75, 0.25))


def test_delays_are_read_from_what_a_run_or_a_profile_wrote(tmp_path: Path) -> None:
    run, profile = tmp_path / "run.json", tmp_path / "profile.json"
    run.write_text(json.dumps({"delays_seconds": [1.0, 3], "other": 1}))
    profile.write_text(json.dumps({"schema": "baechi/profile/1", "step_seconds": {"median": 2.0, "all": [1.0, 3.0]}}))
    assert parse_delay(str(run)) == read_delays(str(profile)) == Histogram((1.0, 3.0), (1.0, 1.0))


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("{", "B851"),
        ("{}", "B851"),
        ('{"delays_seconds": []}', "B850"),
        ('{"delays_seconds": [0, 0]}', "B850"),
        ('{"delays_seconds": [1, -1]}', "B850"),
        ('{"delays_seconds": [1, NaN]}', "B206"),
        ('{"delays_seconds": "fast"}', "B851"),
        ('{"step_seconds": {"median": 1}}', "B851"),
    ],
)
def test_a_file_without_delays_is_refused(tmp_path: Path, content: str, code: str) -> None:
    path = tmp_path / "delays.json"
    path.write_text(content)
    with pytest.raises(BaechiError) as error:
        read_delays(str(path))
    assert error.value.code == code


def test_a_law_that_is_none_is_refused(tmp_path: Path) -> None:
    for text in ("foo:1", "fixed:-1", "exp:", "erlang:0:1"):
        with pytest.raises(BaechiError, match="no distribution"):
            parse_delay(text)
    with pytest.raises(BaechiError) as error:
        parse_delay(str(tmp_path / "none.json"))
    assert error.value.code == "B851"
    for bad in ((), (float("inf"),)):
        with pytest.raises(BaechiError):
            Histogram(bad)
    with pytest.raises(BaechiError):
        Histogram((1.0, 2.0), (1.0,))
    with pytest.raises(BaechiError):
        Erlang(0, 1.0)
