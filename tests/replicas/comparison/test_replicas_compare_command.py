"""`baechi replicas compare`: what it prints, draws and refuses."""

import json

import pytest

from baechi.cli.main import main

QUICK = ["replicas", "compare", "--problem", "quadratic", "--steps", "20", "--workers", "3", "--data", "size=12"]


def test_a_table(capsys):
    assert main([*QUICK, "--methods", "sync-sgd,cser,cser@wide", "--set", "cser@wide.h=4", "--set", "lr=0.05"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["method", "sync-sgd", "cser", "cser@wide"]
    assert "expected loss" in lines[0]


def test_json_and_a_page(capsys, tmp_path):
    page = tmp_path / "race.html"
    assert main([*QUICK, "--methods", "sync-sgd,fedasync", "--seeds", "2", "--json", "-o", str(page)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["schema"] == "baechi/replicas-compare/1"
    assert [method["label"] for method in data["methods"]] == ["sync-sgd", "fedasync"]
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_equal_bytes(capsys):
    assert main([*QUICK[:4], "--workers", "2", "--bytes", "4KB", "--methods", "sync-sgd,local-sgd", "--json"]) == 0
    sync, local = json.loads(capsys.readouterr().out)["methods"]
    assert local["steps"] > 7 * sync["steps"]


def test_hostile_workers(capsys):
    attack = ["--attack", "ipm:epsilon=20", "--hostile", "1", "--set", "sync-sgd@krum.rule=krum"]
    methods = ["--methods", "sync-sgd,sync-sgd@krum", "--set", "sync-sgd@krum.f=1"]
    assert main([*QUICK[:-4], "--workers", "6", *methods, *attack, "--json"]) == 0
    mean, krum = json.loads(capsys.readouterr().out)["methods"]
    assert krum["loss"] < 0.1 * mean["loss"]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--methods", "sgd"], "B831"),
        (["--set", "cser.hh=1"], "B831"),
        (["--set", "cser.h=x"], "B831"),
        (["--set", "cser.h=0"], "B831"),
        (["--set", "cser.c1=gzip"], "B830"),
        (["--set", "savic.h=4"], "B108"),
        (["--set", "h"], "B108"),
        (["--time", "soon"], "B108"),
        (["--bytes", "much"], "B301"),
        (["--data", "depth=3"], "B820"),
        (["--seeds", "0"], "B835"),
        (["--attack", "lies"], "B824"),
        (["--attack", "ipm", "--hostile", "3"], "B824"),
        (["--workers", "0"], "B820"),
        (["--bandwidth", "0"], "B833"),
        (["-o", "/no/such/place.html"], "B404"),
    ],
)
def test_what_cannot_be_is_one_error(more, code, capsys):
    assert main([*QUICK, *more]) == 2
    assert f"error[{code}]" in capsys.readouterr().err
