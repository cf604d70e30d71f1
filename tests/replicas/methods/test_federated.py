"""FedAvg, SLSGD and FedPBC against closed forms: bias under flaky links, stationary variance, the kept mean."""

from itertools import product
from math import pi, sin

import pytest
import torch

from baechi.errors import BaechiError
from baechi.replicas.methods import method
from baechi.replicas.methods.links import Links, sampled
from baechi.replicas.methods.lockstep import Lockstep
from baechi.replicas.problems import problem
from baechi.replicas.problems.quadratic import Quadratic


def optima(*rows):
    """A bowl of curvature 1 for each row, around it."""
    bowl = Quadratic(len(rows), size=len(rows[0]), condition=1.0)
    bowl.centres = torch.tensor(rows, dtype=torch.float64)
    return bowl


def mean_over(made, steps, burn):
    total = torch.zeros(len(made.model()), dtype=torch.float64)
    for t in range(burn + steps):
        made.step()
        if t >= burn:
            total += made.model()
    return total / steps


def biased(p, u, n=None):
    """sum_i u_i E[n_i 1{i in A} / sum_A n] / P(A is not empty), by all subsets."""
    n = n or (1,) * len(u)
    limit = some = 0.0
    for up in product((0, 1), repeat=len(p)):
        chance = 1.0
        for q, is_up in zip(p, up, strict=True):
            chance *= q if is_up else 1 - q
        if any(up):
            some += chance
            heard = [(k, x) for k, x, is_up in zip(n, u, up, strict=True) if is_up]
            limit += chance * sum(k * x for k, x in heard) / sum(k for k, _ in heard)
    return limit / some


@pytest.mark.parametrize(
    ("p", "u", "published"), [((0.9, 0.1), (0.0, 100.0), 6.04), ((0.9, 0.5, 0.2, 0.05), (0.0, 10.0, 40.0, 80.0), None)]
)
def test_fedavg_goes_to_the_biased_limit(p, u, published):
    exact = biased(p, u)
    assert published is None or exact == pytest.approx(published, abs=0.01)
    data = optima(*[(x,) for x in u])
    made = Lockstep(method("fedavg", h=1, lr=0.05, links="bernoulli", p=p), data, len(u), seed=5)
    found = float(mean_over(made, 3000, 100))
    # the mean of 3,000 rounds of a chain that forgets in 20 has a standard error of about 2 % of the spread of u
    assert found == pytest.approx(exact, rel=0.02, abs=0.02 * (max(u) - min(u)))
    assert abs(found - sum(u) / len(u)) > 10


def test_fedavg_weights_clients_by_their_examples():
    data, sizes = problem("mnist", workers=4, hidden=3, skew=1.5, dtype=torch.float64), []
    made = Lockstep(method("fedavg", h=2, lr=0.1), data, 4)
    x, after = made.model().clone(), []
    for i, part in enumerate(data.parts):
        own = x.clone()
        for t in range(2):
            own -= 0.1 * data.gradient(own, i, t)[1]
        after.append(len(part) * own)
        sizes.append(len(part))
    assert max(sizes) > 2 * min(sizes)
    made.step()
    made.step()
    torch.testing.assert_close(made.model(), sum(after) / sum(sizes), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["fedavg", "slsgd"])
def test_the_weighted_mean_of_clients_that_always_come_goes_to_the_weighted_optimum(name):
    u, n = (0.0, 10.0, 40.0), (1.0, 2.0, 5.0)
    made = Lockstep(method(name, h=3, lr=0.2, weights=n), optima(*[(x,) for x in u]), 3)
    for _ in range(300):
        made.step()
    assert float(made.model()) == pytest.approx(sum(k * x for k, x in zip(n, u, strict=True)) / 8, abs=1e-9)


def test_weighted_fedavg_under_flaky_links_goes_to_the_weighted_biased_limit():
    p, u, n = (0.9, 0.5, 0.3), (0.0, 40.0, 100.0), (5.0, 1.0, 2.0)
    made = Lockstep(
        method("fedavg", h=1, lr=0.05, links="bernoulli", p=p, weights=n), optima(*[(x,) for x in u]), 3, seed=5
    )
    exact = biased(p, u, n)
    assert abs(exact - biased(p, u)) > 5
    assert float(mean_over(made, 3000, 100)) == pytest.approx(exact, abs=2.0)


def test_equal_weights_are_the_plain_mean_bit_for_bit():
    data = problem("mnist", workers=4, hidden=3)
    mine, plain = (Lockstep(method("fedavg", h=2, weights=w), data, 4) for w in ((), (1.0,)))
    for _ in range(6):
        mine.step()
        plain.step()
    assert torch.equal(mine.model(), plain.model())


@pytest.mark.parametrize("links", ["bernoulli", "markov", "cyclic"])
@pytest.mark.parametrize("lr", [0.02, 0.3])
def test_fedpbc_keeps_the_mean_whatever_the_links_do(links, lr):
    u = (0.0, 10.0, 40.0, 80.0)
    made = Lockstep(
        method("fedpbc", h=5, lr=lr, links=links, p=(0.9, 0.5, 0.2, 0.05)), optima(*[(x,) for x in u]), 4, seed=3
    )
    mean = float(made.model())
    for _ in range(300):
        made.step()
        mean -= lr * (mean - sum(u) / 4)
        assert float(made.model()) == pytest.approx(mean, abs=1e-9)
    assert len({float(w.x) for w in made.workers}) > 1


def test_fedpbc_with_all_links_up_is_local_sgd():
    data = problem("quadratic", workers=3, size=5, noise=0.1)
    mine = Lockstep(method("fedpbc", h=4, links="always"), data, 3)
    plain = Lockstep(method("local-sgd", h=4), data, 3)
    for _ in range(12):
        mine.step()
        plain.step()
    assert torch.equal(mine.model(), plain.model())
    assert mine.sent == plain.sent


def test_a_round_that_nobody_is_up_for_changes_nothing():
    data = optima((0.0,), (100.0,))
    made = Lockstep(method("fedavg", h=2, links="bernoulli", p=(0.1,)), data, 2, seed=1)
    quiet = 0
    for _ in range(30):
        before, sent = made.model().clone(), list(made.sent)
        made.step()
        made.step()
        if not made.workers[0].clients:
            quiet += 1
            assert torch.equal(made.model(), before)
            assert made.sent == sent
    assert quiet > 10


@pytest.mark.parametrize("alpha", [1.0, 0.5, 0.2])
def test_slsgds_stationary_variance_is_the_formula(alpha):
    n, k, h, eta, d = 8, 3, 1, 0.5, 50
    u = torch.randn(n, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    data = optima(*u.tolist())
    made = Lockstep(method("slsgd", alpha=alpha, h=h, lr=eta, sample=k), data, n, seed=4)
    squares, rounds, burn = 0.0, 1500, 60
    for r in range(burn + rounds):
        for _ in range(h):
            made.step()
        if r >= burn:
            squares += float(((made.model() - u.mean(0)) ** 2).mean()) / rounds
    c = (1 - eta) ** h
    r = 1 - alpha * (1 - c)
    exact = alpha**2 * (1 - c) ** 2 * float(u.var(0).mean()) / k * (1 - k / n) / (1 - r**2)
    assert squares == pytest.approx(exact, rel=0.07)


def test_slsgd_with_alpha_1_and_nothing_trimmed_is_fedavg():
    data = problem("quadratic", workers=6, size=9, noise=0.2)
    mine = Lockstep(method("slsgd", alpha=1.0, b=0, sample=3), data, 6)
    plain = Lockstep(method("fedavg", sample=3), data, 6)
    for _ in range(20):
        mine.step()
        plain.step()
    assert torch.equal(mine.model(), plain.model())
    assert mine.sent == plain.sent


def test_slsgds_option_2_is_a_trimmed_mean():
    data = problem("quadratic", workers=7, size=9)
    made = Lockstep(method("slsgd", alpha=0.7, b=2, h=1, lr=0.1), data, 7)
    x = made.model().clone()
    local = torch.stack([x - 0.1 * data.gradient(x, i, 0)[1] for i in range(7)])
    made.step()
    trimmed = local.sort(0).values[2:-2].mean(0)
    torch.testing.assert_close(made.model(), 0.3 * x + 0.7 * trimmed, rtol=0, atol=1e-12)


def test_slsgd_stays_where_it_is_when_too_few_come_to_trim():
    data = problem("quadratic", workers=7, size=9)
    made = Lockstep(method("slsgd", b=3, h=1, links="bernoulli", p=(0.3,)), data, 7)
    for _ in range(40):
        before = made.model().clone()
        made.step()
        assert torch.equal(made.model(), before) == (len(made.workers[0].clients) <= 6)


@pytest.mark.parametrize("kind", ["bernoulli", "markov", "cyclic"])
def test_links_are_up_as_often_as_said(kind):
    links, up, total = Links(kind, (0.7, 0.2), memory=0.5), (), [0, 0, 0, 0]
    for t in range(6000):
        up = links.up(9, t, 4, up)
        total = [n + u for n, u in zip(total, up, strict=True)]
    assert [n / 6000 for n in total] == pytest.approx([0.7, 0.2, 0.7, 0.2], abs=0.03)


@pytest.mark.parametrize("gamma", [0.1, 0.4])
def test_fluctuating_links_are_up_by_the_sine(gamma):
    links, by_phase = Links("bernoulli", (0.8,), fluctuation=gamma, wave=8), [0] * 8
    rounds, clients = 400, 20
    for t in range(8 * rounds):
        by_phase[t % 8] += sum(links.up(2, t, clients, ()))
    found = [n / (rounds * clients) for n in by_phase]
    assert found == pytest.approx([0.8 * (1 - gamma + gamma * sin(2 * pi * t / 8)) for t in range(8)], abs=0.02)
    assert sum(found) / 8 == pytest.approx(0.8 * (1 - gamma), abs=0.01)


def test_fedpbc_keeps_the_mean_while_links_fluctuate():
    u = (0.0, 10.0, 40.0, 80.0)
    made = Lockstep(method("fedpbc", h=5, lr=0.1, fluctuation=0.4), optima(*[(x,) for x in u]), 4, seed=3)
    mean = float(made.model())
    for _ in range(300):
        made.step()
        mean -= 0.1 * (mean - sum(u) / 4)
    assert float(made.model()) == pytest.approx(mean, abs=1e-9)


def test_markov_links_remember():
    links, up, same = Links("markov", (0.5,), memory=0.8), (), 0
    for t in range(6000):
        before, up = up, links.up(9, t, 1, up)
        same += before == up
    assert same / 6000 == pytest.approx(0.9, abs=0.02)  # (1 + memory) / 2


def test_a_sample_has_k_and_everyone_comes_alike():
    hits = [0] * 10
    for t in range(3000):
        chosen = sampled(1, t, 10, 4)
        assert len(chosen) == 4
        for i in chosen:
            hits[i] += 1
    assert [n / 3000 for n in hits] == pytest.approx([0.4] * 10, abs=0.03)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("slsgd", {"alpha": 0.0}),
        ("slsgd", {"alpha": 1.1}),
        ("slsgd", {"b": 2, "sample": 4}),
        ("slsgd", {"b": -1}),
        ("fedavg", {"links": "flaky"}),
        ("fedavg", {"p": (0.0,)}),
        ("fedpbc", {"p": ()}),
        ("fedpbc", {"memory": 1.0}),
        ("fedavg", {"sample": -1}),
        ("fedavg", {"weights": (1.0, 0.0)}),
        ("fedavg", {"weights": (float("nan"),)}),
        ("fedpbc", {"weights": (1.0, 2.0)}),
        ("fedpbc", {"fluctuation": 0.6}),
        ("fedpbc", {"wave": 0}),
        ("fedpbc", {"links": "cyclic", "fluctuation": 0.1}),
        ("slsgd", {"weights": (1.0, 2.0), "b": 1}),
        ("sync-sgd", {"rule": "majority"}),
        ("no-such", {}),
        ("fedavg", {"hh": 3}),
    ],
)
def test_options_out_of_range_are_one_error(name, options):
    with pytest.raises(BaechiError) as caught:
        method(name, **options)
    assert caught.value.code == "B831"


def test_trimming_more_than_there_are_is_one_error():
    with pytest.raises(BaechiError, match="b is 2 of 4 clients"):
        Lockstep(method("slsgd", b=2), problem("quadratic", workers=4), 4)
