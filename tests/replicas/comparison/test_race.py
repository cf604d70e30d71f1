"""Races: equal steps, bytes and time, the theory line, divergence, data and page."""

import json
import re
from html import unescape
from statistics import fmean

import pytest
import torch

from baechi.errors import BaechiError
from baechi.replicas.comparison.page import race_html
from baechi.replicas.comparison.race import Budget, Entry, race
from baechi.replicas.comparison.table import race_to_dict, race_to_text, rows_of
from baechi.replicas.comparison.theory import expected_losses
from baechi.replicas.methods import method
from baechi.replicas.methods.lockstep import Costs, Lockstep
from baechi.replicas.problems import problem

SYNC, LOCAL = Entry("sync-sgd", "sync-sgd", {}), Entry("local-sgd", "local-sgd", {"h": 4})


def bowl(seed, **options):
    return problem("quadratic", workers=3, size=10, seed=seed, **{"noise": 0.1} | options)


def run(entries, budget, **options):
    return race(entries, bowl, 3, budget, options.pop("seeds", (0,)), **options)


def test_equal_steps():
    found = run([SYNC, LOCAL], Budget(40), points=10)
    assert [curve.points[-1].step for curve in found.curves] == [40, 40]
    assert [len(curve.points) for curve in found.curves] == [11, 11]
    assert [row.ratio for row in rows_of(found)] == [1.0, 4.0]


def test_equal_bytes_give_the_thrifty_more_steps():
    sync, local = run([SYNC, LOCAL], Budget(1000, nbytes=10 * 80)).curves
    assert (sync.points[-1].step, local.points[-1].step) == (10, 40)
    assert sync.points[-1].nbytes == local.points[-1].nbytes == 800


def test_equal_time_is_the_cost_models():
    costs = Costs(step_seconds=1.0, bytes_per_second=160.0)  # a mean of 80 bytes takes a second
    sync, local = run([SYNC, LOCAL], Budget(1000, seconds=20.0), costs=costs).curves
    assert (sync.points[-1].step, local.points[-1].step) == (10, 16)


def test_a_run_that_diverges_stops_and_is_said_to():
    found = run([SYNC, Entry("wild", "sync-sgd", {"lr": 99.0})], Budget(4000))
    assert [curve.diverged for curve in found.curves] == [False, True]
    assert found.curves[1].points[-1].step < 4000
    assert "diverged" in race_to_text(found)
    assert "diverged" in race_html(found)
    json.dumps(race_to_dict(found), allow_nan=False)


@pytest.mark.parametrize("name", ["sync-sgd", "local-sgd", "cser", "choco", "fedpbc"])
def test_the_theory_line_is_exact_without_noise(name):
    data, made = bowl(1, noise=0.0), method(name, warmup=5)
    runner = Lockstep(made, data, 3, seed=1)
    losses = []
    for _ in range(20):
        losses.append(data.loss(runner.model()))
        runner.step()
    assert expected_losses(made, data, 3, 1, range(20)) == pytest.approx(losses, rel=1e-9)


def test_the_theory_line_is_the_mean_over_the_noise():
    made, losses = method("sync-sgd", lr=0.5), []
    for seed in range(200):
        data = bowl(0, noise=2.0)
        data.seed = 1000 + seed  # other noise, the same bowls
        runner = Lockstep(made, data, 3)
        for _ in range(8):
            runner.step()
        losses.append(data.loss(runner.model()))
    (expected,) = expected_losses(made, bowl(0, noise=2.0), 3, 0, [8])
    assert fmean(losses) == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize(
    ("name", "options", "data"),
    [
        ("ef-sgd", {}, {}),
        ("adagossip", {}, {}),
        ("sync-sgd", {"momentum": 0.5}, {}),
        ("sync-sgd", {"rule": "median", "f": 1}, {}),
        ("sync-sgd", {}, {"spread": 0.1}),
    ],
)
def test_there_is_no_theory_line_where_the_form_does_not_hold(name, options, data):
    assert expected_losses(method(name, **options), bowl(0, **data), 3, 0, [0, 1]) == ()


def test_a_page_asks_nothing_of_a_network():
    found = run([SYNC, LOCAL, Entry("<b>", "ef-sgd", {})], Budget(30), seeds=(0, 1))
    html = race_html(found)
    assert "default-src 'none'" in unescape(html)
    assert "<b>" not in html.partition("<script>")[0]
    assert not re.search(r'(?:src|href)="?(?:https?:)?//', html.partition("<script>")[0])
    item = json.loads(re.search(r'<script type="application/json" id="item">(.*?)</script>', html, re.DOTALL)[1])
    assert item["target_id"] == "charts"


def test_the_data_say_all():
    data = race_to_dict(run([SYNC, LOCAL], Budget(20), seeds=(0, 1), points=4))
    assert [(c["label"], c["seed"]) for c in data["curves"]] == [
        (n, s) for s in (0, 1) for n in ("sync-sgd", "local-sgd")
    ]
    assert all(len(c["loss"]) == len(c["step"]) == len(c["expected_loss"]) == 5 for c in data["curves"])
    assert data["methods"][1]["ratio"] == 4.0
    assert data["curves"][1]["options"] == {"h": 4}


@pytest.mark.parametrize(
    ("entries", "steps", "seeds"), [([], 10, (0,)), ([SYNC, SYNC], 10, (0,)), ([SYNC], 10, ()), ([SYNC], 0, (0,))]
)
def test_nothing_to_run_is_one_error(entries, steps, seeds):
    with pytest.raises(BaechiError) as caught:
        race(entries, bowl, 3, Budget(steps), seeds)
    assert caught.value.code == "B835"


def test_all_methods_see_the_same_start_and_data():
    first, second = run([SYNC, Entry("again", "sync-sgd", {})], Budget(10)).curves
    assert first.points == second.points
    assert torch.equal(bowl(0).start(0), bowl(0).start(0))
