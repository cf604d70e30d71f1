"""Simulated training: against least squares and plain gradient descent; stopped, resumed; the sweep and its page."""

from pathlib import Path

import numpy as np
import pytest

from baechi.errors import BaechiError
from baechi.replicas.clocks import Distribution, parse_distribution
from baechi.replicas.conditions import Conditions, parse_change
from baechi.replicas.draco_options import DracoOptions
from baechi.replicas.gossip import GossipOptions
from baechi.replicas.regression import Regression
from baechi.replicas.sweep import sweep, sweep_page
from baechi.replicas.trial import Trial, TrialOptions


def test_the_optimum_has_no_gradient_and_a_step_is_one_of_gradient_descent() -> None:
    problem = Regression(3, dimension=4, rows=20, batch=20, eta=0.1, seed=2)
    rows, targets = problem.features.reshape(60, 4), problem.targets.ravel()
    np.testing.assert_allclose(rows.T @ (rows @ problem.optimum - targets), 0, atol=1e-10)
    for model in (problem.optimum, np.arange(4.0)):
        assert problem.loss(model) == pytest.approx(((rows @ model - targets) ** 2).mean() / 2)
    many = Regression(1, dimension=4, rows=50, batch=100_000, eta=0.1, noise=0.0)
    exact = 0.1 * many.features[0].T @ many.targets[0] / 50
    np.testing.assert_allclose(many.step(0, many.start(), 0)[0], exact, atol=0.01)
    again = Regression(3, dimension=4, rows=20, batch=20, eta=0.1, seed=2)
    assert again.step(1, again.start(), 7)[0].tobytes() == problem.step(1, problem.start(), 7)[0].tobytes()
    with pytest.raises(BaechiError):
        Regression(2, eta=0.0)


@pytest.mark.parametrize("mixing", ["symmetric", "pull", "push-sum"])
def test_gossip_trains_to_the_common_optimum_and_alone_nobody_does(mixing: str) -> None:
    problem = {"eta": 0.02, "skew": 0.5, "noise": 0.01}
    options = TrialOptions(
        6,
        gossip=GossipOptions(mixing=mixing),  # type: ignore[arg-type]
        conditions=Conditions(mixing=parse_distribution("exp:0.2")),
        problem=problem,
        every=10.0,
    )
    trial = Trial(options)
    trial.run(300.0)
    best = trial.problem.loss(trial.problem.optimum)
    late = [s for s in trial.samples if s.seconds > 150]
    excess = np.mean([s.loss for s in late]) - best
    alone = Trial(TrialOptions(6, conditions=Conditions(mixing=Distribution(offset=1e9)), problem=problem, every=10.0))
    alone.run(300.0)
    assert excess < 0.1 * (alone.samples[-1].loss - best)
    assert excess < 0.02 * (trial.samples[0].loss - best)


def test_staleness_of_real_peers_follows_the_law() -> None:
    trial = Trial(TrialOptions(12, gossip=GossipOptions(mixing="pull"), every=0.5, problem={"dimension": 1}))
    trial.run(400.0)
    law = sum(1 / k for k in range(1, 12))
    assert trial.law() == pytest.approx(law)
    assert trial.mean_staleness(50.0) == pytest.approx(law, rel=0.05)


@pytest.mark.parametrize("algorithm", ["gossip", "draco"])
def test_a_trial_goes_on_from_its_checkpoint_with_the_same_numbers(algorithm: str, tmp_path: Path) -> None:
    churn = tuple(map(parse_change, ("crash:1@5", "restart:1@9")))
    conditions = Conditions(latency=parse_distribution("exp:0.1"), drop=0.1, timeout=1.0, churn=churn)
    options = TrialOptions(5, algorithm, draco=DracoOptions(max_delay=0.3), conditions=conditions, every=1.0, seed=3)
    whole = Trial(options)
    whole.run(20.0)
    Trial(options).run(7.0, tmp_path / "state")
    half = Trial.resume(tmp_path / "state", options)
    assert half.world.now == 7.0
    half.run(20.0, tmp_path / "state")
    assert half.samples == whole.samples
    assert half.losses() == whole.losses()
    assert half.refused() == whole.refused()
    assert Trial.resume(tmp_path / "state", options).samples == whole.samples
    with pytest.raises(BaechiError, match="seed"):
        Trial.resume(tmp_path / "state", TrialOptions(5, algorithm, every=1.0, conditions=conditions, seed=4))


def test_a_sweep_is_near_its_laws_and_its_page_asks_nothing_of_a_network(tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    points = list(sweep([8, 32], exchanges=200_000))
    assert len(points) == 6
    assert all(p.staleness == pytest.approx(p.law, rel=0.05) for p in points)
    sweep_page(points, tmp_path / "plot.html")
    page = (tmp_path / "plot.html").read_text()
    assert "<script src" not in page
    assert "<link" not in page
    assert "opportunistic" in page
