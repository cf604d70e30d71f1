"""`baechi replicas attack`."""

import json

import pytest

from baechi.cli.main import main

QUICK = ["replicas", "attack", "--problem", "quadratic", "--set", "size=8", "--steps", "20", "--processes", "1"]


def test_the_table_says_who_breaks_whom(capsys):
    arguments = ["--workers", "11", "--hostile", "3,6", "--rules", "mean,median,krum,zeno", "--attacks", "gaussian"]
    assert main([*QUICK, *arguments]) == 0
    out, err = capsys.readouterr()
    assert "gaussian, 3 of 11 hostile: breaks mean\n" in out
    assert "gaussian, 6 of 11 hostile: breaks none\n" in out
    last = next(line for line in out.splitlines() if line.startswith("gaussian  ") and " 6 " in line)
    assert last.split()[2:5] == ["-", "-", "-"]
    assert "warning: median does not bear 6 hostile of 11 peers" in err


def test_json_has_the_same(capsys):
    arguments = ["--workers", "9", "--hostile", "2", "--rules", "mean,trimmed-mean", "--attacks", "ipm:epsilon=20"]
    assert main([*QUICK, *arguments, "--bears", "1", "--dimensional", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "baechi/replicas-attack/1"
    assert found["options"] == {"size": 8, "workers": 9, "seed": 0}
    assert "trimmed-mean is told to bear 1 hostile peers, and there are 2" in found["warnings"]
    mean, trimmed = found["matches"]
    assert (mean["rule"], mean["attack"], mean["attack_options"]) == ("mean", "ipm", {"epsilon": 20})
    assert (mean["hostile"], mean["bears"], mean["corruption"], mean["broken"]) == (2, 1, "dimensional", True)
    assert trimmed["loss"] < mean["loss"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--rules", "best"], "B822", "no aggregation rule 'best'"),
        (["--attacks", "flood"], "B824", "no attack 'flood'"),
        (["--attacks", "ipm:sigma=1"], "B824", "no option sigma"),
        (["--attacks", "ipm:epsilon=much"], "B108", "ipm:epsilon=much"),
        (["--attacks", "gaussian:sigma=-1"], "B824", "sigma -1"),
        (["--set", "size=many"], "B820", "size is 'many'"),
        (["--attacks", "ipm:epsilon"], "B102", "no key=value"),
        (["--hostile", "0"], "B108", "from 1 to 19"),
        (["--hostile", "20"], "B108", "from 1 to 19"),
        (["--hostile", "some"], "B108", "from 1 to 19"),
        (["--rate", "0"], "B108", "no positive number"),
        (["--problem", "cifar"], "B820", "no problem 'cifar'"),
        (["--set", "depth=3"], "B820", "depth"),
        (["--set", "workers=3"], "B108", "workers"),
    ],
)
def test_bad_input(capsys, arguments, code, says):
    assert main([*QUICK, *arguments]) == 2
    err = capsys.readouterr().err
    assert f"error[{code}]" in err
    assert says in err
