"""Staleness of gossip against exact laws; the compiled loops against sums over all pairs."""

import math

import numpy as np
import pytest

from baechi.errors import BaechiError
from baechi.replicas.age_model import AgeModel, staleness_law, transient_law
from baechi.replicas.ages import Ages, replay_ages, simulate_ages
from baechi.replicas.topology import mixing_matrix, parse_topology


def harmonic(m: int) -> float:
    return sum(1 / k for k in range(1, m + 1))


def simulated(n: int, capacity: float, exchanges: float = 4e5, seed: int = 0, **options: object) -> Ages:
    model = AgeModel(parse_topology(str(options.pop("topology", "complete")), n), capacity, **options)  # type: ignore[arg-type]
    law = staleness_law(model)
    settles = 8 * (law or n) / model.effective_rate + 30 / capacity
    return simulate_ages(model, max(settles, exchanges / (n * capacity)), seed=seed)


@pytest.mark.parametrize("n", [8, 32, 128, 512, 4096])
@pytest.mark.parametrize(("name", "offset"), [("constant", 0.0), ("log", 0.0), ("constant", 0.5)])
def test_staleness_is_mu_times_harmonic_over_capacity(n: int, name: str, offset: float) -> None:
    """E[S] = mu_eff H_(n-1) / lambda, mu_eff = 1/(c + 1/mu): first passage on the complete graph."""
    capacity = math.log(n) if name == "log" else 1.0
    found = simulated(n, capacity, 1e5 if n > 1000 else 4e5, compute_offset=offset)
    assert found.settled
    assert found.mean_staleness == pytest.approx(harmonic(n - 1) / (1 + offset) / capacity, rel=0.05)


def test_constant_capacity_grows_as_the_logarithm_and_a_logarithmic_one_stays_bounded() -> None:
    counts = [16, 64, 256, 1024]
    constant = [simulated(n, 1.0).mean_staleness for n in counts]
    log = [simulated(n, math.log(n)).mean_staleness for n in counts]
    assert np.allclose(np.diff(constant), math.log(4), atol=0.15)
    assert all(1.0 < s < 1.25 for s in log)


@pytest.mark.parametrize("name", ["constant", "log", "linear"])
@pytest.mark.parametrize("n", [8, 16, 32, 64])
def test_opportunistic_gossip_needs_a_capacity_that_grows_with_n(n: int, name: str) -> None:
    """Source: the table of simulated values for n = 8, 16, 32, 64 in the notes on arXiv:2404.19749; and mu (n-1) / lambda."""
    table = {
        "constant": [7.0, 14.8, 30.7, 60.7],
        "log": [3.4, 5.4, 8.8, 15.1],
        "linear": [3.4, 3.8, 3.9, 4.0],
    }
    capacity = {"constant": 1.0, "log": math.log(n), "linear": n / 4}[name]
    found = simulated(n, capacity, 3e5, opportunistic=True)
    assert found.mean_staleness == pytest.approx(table[name][int(math.log2(n)) - 3], rel=0.05)
    assert found.mean_staleness == pytest.approx((n - 1) / capacity, rel=0.05)


@pytest.mark.parametrize("mixing", ["pull", "push-sum", "symmetric"])
@pytest.mark.parametrize("topology", ["complete", "ring"])
def test_the_laws_of_the_ways_to_mix(mixing: str, topology: str) -> None:
    found = simulated(40, 1.0, mixing=mixing, topology=topology)
    law = harmonic(39) if topology == "complete" else 20.0
    assert found.mean_staleness == pytest.approx(law / (2 if mixing == "symmetric" else 1), rel=0.05)


def test_a_sample_of_sources_estimates_the_mean_over_all() -> None:
    model = AgeModel(parse_topology("complete", 2000))
    sampled = simulate_ages(model, 120.0, sources=100)
    assert sampled.mean_staleness == pytest.approx(harmonic(1999), rel=0.05)
    assert len(sampled.sources) == 100


def test_many_peers_follow_the_law_of_a_run_that_is_too_short() -> None:
    model = AgeModel(parse_topology("complete", 100_000))
    for seconds in (6.0, 12.0):
        found = simulate_ages(model, seconds, sources=200)
        assert not found.settled
        assert found.staleness_at_end == pytest.approx(transient_law(model, seconds), rel=0.05)
    assert transient_law(model, 1e3) == pytest.approx(staleness_law(model), rel=1e-3)


def test_capacities_that_differ_count_by_their_mean_where_all_are_fed_alike() -> None:
    """Pull by one peer only: nobody else ever learns; its own view is one hop old: mu (n-1) / lambda."""
    model = AgeModel(parse_topology("complete", 6), np.array([3.0, 0, 0, 0, 0, 0]))
    found = simulate_ages(model, 4000.0, warmup=0.0, intervals=1)
    own = [found.versions[i, i] for i in range(6)]
    assert not found.versions[1:].sum() - sum(own[1:])
    assert own == pytest.approx([4000] * 6, rel=0.1)
    assert np.mean([own[i] - found.versions[0, i] for i in range(1, 6)]) < 15


def test_the_running_sum_is_the_sum_over_pairs() -> None:
    model = AgeModel(parse_topology("torus", 24), 0.7, 1.3, 0.2, mixing="symmetric")
    found = simulate_ages(model, 50.0, seed=4)
    own = np.diag(found.versions)
    assert found.staleness_at_end == pytest.approx((own[None, :] - found.versions).sum() / (24 * 23))
    assert found.updates == own.sum()


def test_the_time_average_is_the_integral_of_a_replay() -> None:
    """Two peers, by hand: an update of 0 at 1 s, peer 1 pulls at 3 s, an update at 4 s: at the end 1 behind."""
    model = AgeModel(parse_topology("complete", 2))
    found = replay_ages(model, np.array([0, 1, 0]), np.array([0, 1, 0]), np.array([-1, 0, -1]))
    assert found.versions.tolist() == [[2, 0], [1, 0]]
    assert found.staleness_at_end == 0.5


@pytest.mark.parametrize("mixing", ["push-sum", "symmetric"])
def test_the_weighted_mean_is_kept_and_the_models_meet(mixing: str) -> None:
    values = np.arange(20.0).reshape(10, 2)
    model = AgeModel(parse_topology("random-regular:3", 10), mixing=mixing)
    found = simulate_ages(model, 150.0, values=values)
    np.testing.assert_allclose(found.values, np.broadcast_to(values.mean(axis=0), (10, 2)), rtol=1e-6)
    assert found.weights.sum() == pytest.approx(10)
    assert found.disagreement[0] == 1
    assert found.disagreement[-1] < 1e-6


def test_pull_wanders_as_much_as_its_events_say() -> None:
    """Source: n = 10 values 0..9: mean of the limit 4.5, standard deviation .88."""
    model = AgeModel(parse_topology("complete", 10))
    values = np.arange(10.0)[:, None]
    limits = [simulate_ages(model, 30.0, seed=s, values=values, intervals=1).values.mean() for s in range(2000)]
    assert np.mean(limits) == pytest.approx(4.5, abs=0.08)
    assert np.std(limits) == pytest.approx(0.88, rel=0.05)


def test_the_seed_fixes_every_number() -> None:
    model = AgeModel(parse_topology("one-peer-exponential", 100), compute_offset=0.3)
    one, two, other = (simulate_ages(model, 30.0, seed=s, dimension=2) for s in (1, 1, 2))
    assert one.versions.tobytes() == two.versions.tobytes()
    assert one.values.tobytes() == two.values.tobytes()
    assert one.mean_staleness == two.mean_staleness != other.mean_staleness


def test_symmetric_consensus_contracts_as_the_expected_matrix_says() -> None:
    """A pair becomes its mean: E[sum of squares] falls by the factor 1 - 1/(n-1) at each exchange on a complete graph."""
    n, rounds = 200, 6.0
    model = AgeModel(parse_topology("complete", n), mixing="symmetric")
    found = [simulate_ages(model, rounds, seed=s, dimension=50) for s in range(4)]
    squares = np.mean([f.disagreement[-1] ** 2 for f in found])
    assert squares == pytest.approx(math.exp(-rounds * n / (n - 1)), rel=0.1)
    assert np.allclose(mixing_matrix(parse_topology("ring", 5)).sum(axis=0), 1)


def test_what_cannot_be_simulated() -> None:
    ring = parse_topology("ring", 5)
    for wrong in (
        {"capacity": 0.0},
        {"capacity": np.ones(3)},
        {"update_rate": 0.0},
        {"compute_offset": -1.0},
        {"mixing": "shout"},
        {"weight": 0.0},
        {"mixing": "symmetric", "opportunistic": True},
    ):
        with pytest.raises(BaechiError) as caught:
            AgeModel(ring, **wrong)  # type: ignore[arg-type]
        assert caught.value.code == "B842"
    for options in ({"seconds": 0.0}, {"seconds": 1.0, "sources": 6}, {"seconds": 1.0, "warmup": 1.0}):
        with pytest.raises(BaechiError):
            simulate_ages(AgeModel(ring), **options)  # type: ignore[arg-type]
    with pytest.raises(BaechiError, match="one row"):
        simulate_ages(AgeModel(ring), 1.0, values=np.zeros((4, 1)))
