import re
from dataclasses import fields

import pytest

from baechi.errors import BaechiError
from baechi.replicas.attacks import ATTACKS
from baechi.replicas.compress import COMPRESSORS
from baechi.replicas.methods import METHODS
from baechi.replicas.problems import PROBLEMS
from baechi.replicas.registry import Registry
from baechi.replicas.rules import RULES

LIBRARY = Registry(
    "piece",
    "B999",
    {"split": "shlex:split", "match": "re:Match", "sort": "bisect:insort", "write": "textwrap:TextWrapper"},
)


def test_a_name_stands_for_what_its_module_has():
    assert list(LIBRARY) == ["split", "match", "sort", "write"]
    assert LIBRARY.find("match") is re.Match


def test_what_a_name_takes():
    assert list(LIBRARY.options("sort")) == ["key"]
    assert LIBRARY.options("write")["width"].default == 70
    LIBRARY.check("sort", ["key"])


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: LIBRARY.find("join"), "no piece 'join'\n  help: one of: split, match, sort, write"),
        (lambda: LIBRARY.options("sort", ["lo", "key"]), "piece 'sort' has no option lo\n  help: it has: key"),
        (lambda: LIBRARY.check("split", ["comments"]), "piece 'split' has no option comments\n  help: leave it out"),
        (
            lambda: Registry("slice", "B999", {"needy": f"{__name__}:needy"}).check("needy", (), {"a": "one"}),
            "slice 'needy' needs a, b\n  help: a: one",
        ),
        (
            lambda: Registry("slice", "B999", {"needy": f"{__name__}:needy"}).check("needy", ["a"]),
            f"slice 'needy' needs b\n  help: b: see {__name__}",
        ),
    ],
)
def test_what_there_is_not_is_one_error(ask, says):
    with pytest.raises(BaechiError) as caught:
        ask()
    assert str(caught.value) == "error[B999]: " + says


def needy(*, a, b, c=1):
    return a, b, c


@pytest.mark.parametrize("registry", [RULES, ATTACKS, METHODS, PROBLEMS, COMPRESSORS], ids=lambda r: r.kind)
def test_every_line_of_a_table_leads_somewhere(registry):
    for name in registry:
        assert callable(registry.find(name))


@pytest.mark.parametrize("name", METHODS)
def test_the_options_of_a_method_are_its_fields(name):
    made = METHODS.find(name)
    assert {f.name: f.type for f in fields(made)} == {k: p.annotation for k, p in METHODS.options(name).items()}
