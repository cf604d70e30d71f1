"""FedAsync: its weights' vectors, its server, its client, and what it is when nothing is stale."""

from itertools import pairwise

import pytest
import torch

from baechi.errors import BaechiError
from baechi.replicas.methods import method
from baechi.replicas.methods.core import ProblemOracle
from baechi.replicas.methods.fedasync import staleness_weight
from baechi.replicas.problems import problem


def test_the_vectors_of_the_weights():
    poly = [staleness_weight("polynomial", d, 0.5) for d in (0, 1, 4, 8, 16)]
    assert poly == pytest.approx([1, 0.7071, 0.4472, 0.3333, 0.2425], abs=5e-5)
    hinge = [staleness_weight("hinge", d, 10, 4) for d in (0, 1, 4, 5, 8, 16)]
    assert hinge == pytest.approx([1, 1, 1, 0.0909, 0.0244, 0.0083], abs=5e-5)
    assert [staleness_weight("constant", d) for d in (0, 7, 99)] == [1, 1, 1]
    assert [staleness_weight("exponential", d, 0.5) for d in (0, 2)] == pytest.approx([1, 0.36788], abs=1e-5)


@pytest.mark.parametrize("kind", ["constant", "polynomial", "hinge", "exponential", "sigmoid"])
def test_weights_are_1_for_what_is_fresh_and_never_grow(kind):
    weights = [staleness_weight(kind, d, 0.5, 4) for d in range(3000)]
    assert weights[0] == 1
    assert all(0 <= b <= a for a, b in pairwise(weights))


def test_the_server_mixes_by_staleness():
    server = method("fedasync", alpha=0.5, weight="hinge", a=10.0, b=1.0).server(torch.zeros(2))
    fresh, version = server.pull()
    assert server.push(torch.tensor([1.0, 2.0]), version) == 0.5
    assert server.x.tolist() == [0.5, 1.0]
    assert server.push(torch.tensor([1.0, 1.0]), version) == 0.5
    assert server.push(torch.tensor([1.0, 1.0]), version) == pytest.approx(0.5 / 11)
    assert server.version == 3
    assert fresh.tolist() == [0.0, 0.0]


def test_the_server_leaves_out_what_is_not_finite():
    server = method("fedasync").server(torch.zeros(2))
    assert server.push(torch.tensor([float("nan"), 1.0]), 0) == 0
    assert (server.version, server.x.tolist()) == (0, [0.0, 0.0])


def test_a_client_descends_with_the_proximal_term():
    data = problem("quadratic", workers=2, size=5)
    client = method("fedasync", h=3, lr=0.1, rho=0.7).worker(1, 2, data.start(), 0)
    x = origin = torch.ones(5, dtype=torch.float64)
    client.begin(origin, 4)
    for t in range(3):
        assert client.local(ProblemOracle(data, 1, t)) == (t == 2)
        x = x - 0.1 * (data.gradient(x, 1, t)[1] + 0.7 * (x - origin))
    torch.testing.assert_close(client.x, x, rtol=0, atol=1e-12)
    assert client.version == 4


def test_one_client_and_nothing_stale_is_sgd():
    data = problem("quadratic", workers=1, size=5, noise=0.1)
    made = method("fedasync", alpha=1.0, rho=0.0, max_delay=0, h=4, lr=0.1).runner(data, 1, 0)
    x = data.start(0)
    for t in range(20):
        made.step()
        x = x - 0.1 * data.gradient(x, 0, t)[1]
    torch.testing.assert_close(made.model(), x, rtol=0, atol=1e-12)


def test_delays_are_uniform_up_to_the_largest_and_bytes_are_counted():
    data = problem("quadratic", workers=4, size=5)
    made = method("fedasync", max_delay=3, h=2).runner(data, 4, 0)
    delays = [made.update() for _ in range(2000)]
    assert delays[0] == 0
    assert [delays.count(d) / 2000 for d in range(4)] == pytest.approx([0.25] * 4, abs=0.03)
    assert sum(made.sent) == 2000 * 5 * 8


def test_in_h_steps_of_n_clients_the_server_has_n_updates():
    made = method("fedasync", h=8).runner(problem("quadratic", workers=3, size=5), 3, 0)
    for _ in range(16):
        made.step()
    assert made.server.version == 6
    assert sum(client.total for client in made.clients) == 16 * 3


def test_m_clients_in_turn_are_m_minus_1_versions_behind():
    o, data = method("fedasync", h=1), problem("quadratic", workers=5, size=3)
    server, delays = o.server(data.start()), []
    clients = [o.worker(i, 5, data.start(), 0) for i in range(5)]
    for client in clients:
        client.begin(*server.pull())
    for t in range(40):
        client = clients[t % 5]
        client.local(ProblemOracle(data, client.index, t))
        delays.append(server.version - client.version)
        server.push(client.x, client.version)
        client.begin(*server.pull())
    assert set(delays[5:]) == {4}


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"weight": "linear"}, {"max_delay": -1}, {"rho": -0.1}, {"h": 0}])
def test_options_out_of_range_are_one_error(options):
    with pytest.raises(BaechiError) as caught:
        method("fedasync", **options)
    assert caught.value.code == "B831"


@pytest.mark.parametrize("weight", ["constant", "polynomial", "hinge", "exponential", "sigmoid"])
def test_a_staleness_of_16_is_borne(weight):
    data = problem("quadratic", workers=4, size=6, heterogeneity=0.0)
    made = method("fedasync", h=4, lr=0.2, max_delay=16, weight=weight).runner(data, 4, 0)
    before = data.loss(made.model())
    for _ in range(800):
        made.step()
    assert data.loss(made.model()) < 1e-3 * before
