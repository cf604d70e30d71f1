"""Options of a run: flags over a file over defaults, and what makes no sense."""

from pathlib import Path
from typing import Any

import pytest

from baechi.errors import BaechiError
from baechi.replicas.cluster.settings import run_options


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('replicas = 8\nmixing = "pull"\nmax-staleness = 5\ncheckpoint-every = 7\n', encoding="utf-8")
    options = run_options(str(path), {"mixing": "symmetric", "devices": 2})
    assert (options.hub.count, options.hub.shares, options.checkpoint_every) == (8, 2, 7)
    assert (options.hub.gossip.mixing, options.hub.gossip.max_staleness) == ("symmetric", 5)
    assert options.hub.topology == "complete"


def test_what_is_left_is_the_rules_or_the_methods() -> None:
    assert run_options(flags={"replicas": 4, "rule": "krum", "f": 1}).hub.gossip.rule_options == {"f": 1}
    options = run_options(flags={"method": "cser", "h": 4})
    assert (options.method, options.method_options) == ("cser", {"h": 4})
    assert (options.hub.capacity, options.restarts) == (0.0, 0)


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        ({"replicas": 0}, "B801", "count is 0"),
        ({"replicas": True}, "B801", "count is True"),
        ({"capacity": -1.0}, "B801", "capacity"),
        ({"topology": "star"}, "B841", "star"),
        ({"f": 1}, "B801", "no option 'f'"),
        ({"method": "cser", "capacity": 2.0}, "B801", "does not gossip"),
        ({"method": "cser", "devices": 2}, "B801", "gangs"),
        ({"method": "cser", "hh": 2}, "B831", "hh"),
        ({"algorithm": "swarm"}, "B801", "swarm"),
        ({"rule": "magic"}, "B822", "magic"),
        ({"replicas": 4, "rule": "trimmed-mean"}, "B822", "trimmed-mean"),
        ({"replicas": 4, "rule": "median", "g": 1}, "B822", "g"),
        ({"replicas": 4, "rule": "krum", "f": 2}, "B822", "krum"),
        ({"method": "magic"}, "B831", "magic"),
        ({"mixing": "shout"}, "B801", "shout"),
    ],
)
def test_what_makes_no_sense_is_one_error(flags: dict[str, Any], code: str, says: str) -> None:
    with pytest.raises(BaechiError, match=says) as caught:
        run_options(flags=flags)
    assert caught.value.code == code


@pytest.mark.parametrize(("text", "code"), [(None, "B110"), ("replicas = ", "B801"), ("repli = 2", "B801")])
def test_a_bad_file_is_one_error(text: str | None, code: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(BaechiError) as caught:
        run_options(str(path))
    assert caught.value.code == code
