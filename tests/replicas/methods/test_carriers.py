"""The same workers in lockstep and over gloo; bytes, clock, breaks, and workers that disagree."""

import socket

import pytest
import torch
from torch import distributed, multiprocessing

from baechi.errors import BaechiError
from baechi.replicas.methods import METHODS, method, option_from_text
from baechi.replicas.methods.core import Gather, Mean, ProblemOracle, Worker, drive
from baechi.replicas.methods.distributed import TorchCollective
from baechi.replicas.methods.lockstep import Costs, Lockstep
from baechi.replicas.problems import problem

N, STEPS = 3, 9
FAST = {
    "fedpbc": {"h": 2},
    "fedavg": {"h": 2, "links": "bernoulli", "p": (0.6,), "weights": (1.0, 2.0, 5.0)},
    "slsgd": {"h": 2, "b": 1},
}
DRIVEN = ("cser", "ef-sgd", "local-adaalter", "savic", "fedavg", "slsgd", "fedpbc", "choco")
OPTIONS = FAST | {"ef-sgd": {"c": "top-k:5"}, "cser": {"c1": "sign", "h": 3}, "savic": {"h": 3}}


def bowl():
    return problem("quadratic", workers=N, size=20, noise=0.1, spread=0.2)


def _train(rank, port, results):
    torch.set_num_threads(1)
    store = distributed.TCPStore("127.0.0.1", port, N, rank == 0)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=N)
    data = bowl()
    for name in DRIVEN:
        worker = method(name, **OPTIONS.get(name, {})).worker(rank, N, data.start(0), 0)
        for t in range(STEPS):
            drive(worker.step(t, ProblemOracle(data, rank, t)), TorchCollective())
        results[name, rank] = worker.model.tolist()
    distributed.barrier()
    distributed.destroy_process_group()


def test_over_gloo_the_models_are_those_of_lockstep():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(_train, (port, results), N)
        found = dict(results)
    for name in DRIVEN:
        made = Lockstep(method(name, **OPTIONS.get(name, {})), bowl(), N)
        for _ in range(STEPS):
            made.step()
        for worker in made.workers:
            assert found[name, worker.index] == pytest.approx(worker.model.tolist(), abs=1e-12), name


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_run_goes_on_from_a_break_bit_for_bit(name):
    def begun():
        momentum = {} if name == "fedasync" else {"momentum": 0.5}
        return method(name, lr=0.05, **momentum).runner(bowl(), N, 1)

    whole, broken = begun(), begun()
    for _ in range(13):
        whole.step()
        broken.step()
    state, again = broken.save(), begun()
    again.load(state)
    for _ in range(12):
        whole.step()
        again.step()
    assert torch.equal(whole.model(), again.model())
    assert (whole.t, whole.sent, whole.seconds) == (again.t, again.sent, again.seconds)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_descends(name):
    data = problem("quadratic", workers=4, size=16, heterogeneity=0.3)
    easier = {"c": "random-block:4"} if name == "ef-sgd" else {}  # 32 steps late, it would need a lower rate
    made = method(name, lr=0.3, **easier).runner(data, 4, 0)
    before = data.loss(made.model())
    for _ in range(150):
        made.step()
    assert data.loss(made.model()) < 0.3 * before
    assert made.t == 150


def test_the_clock_is_the_cost_model():
    costs = Costs(step_seconds=0.5, bytes_per_second=100.0, latency=0.25)
    made = Lockstep(method("local-sgd", h=2), bowl(), N, costs=costs)
    for _ in range(4):
        made.step()
    assert made.seconds == pytest.approx(4 * 0.5 + 2 * (0.25 + 2 * 160 / 100))
    gathers = Lockstep(method("ef-sgd", c="sign"), bowl(), N, costs=costs)
    gathers.step()
    assert gathers.seconds == pytest.approx(0.5 + 0.25 + N * (8 + 3) / 100)
    swaps = Lockstep(method("choco", c="identity"), bowl(), N, costs=costs)
    swaps.step()
    assert swaps.seconds == pytest.approx(0.5 + 0.25 + 2 * 160 / 100)
    curved = Lockstep(method("savic", h=8), bowl(), N, costs=costs)
    curved.step()
    assert curved.seconds == pytest.approx(3 * 0.5 + 0.25 + 2 * 160 / 100)


class _Disagrees(Worker):
    def step(self, t, oracle):
        yield (Mean if self.index else Gather)(self.x)


class _Absent(Worker):
    def step(self, t, oracle):
        yield Mean(self.x, active=False)


@pytest.mark.parametrize("kind", [_Disagrees, _Absent])
def test_workers_that_cannot_be_answered_are_one_error(kind):
    made = Lockstep(method("sync-sgd"), bowl(), N)
    made.workers = [kind(index=i, count=N, seed=0, sizes=(20,), x=torch.zeros(20)) for i in range(N)]
    with pytest.raises(BaechiError) as caught:
        made.step()
    assert caught.value.code == "B834"


@pytest.mark.parametrize("name", ["sync-sgd", "fedasync"])
@pytest.mark.parametrize("workers", [0, N + 1])
def test_more_workers_than_have_data_are_one_error(name, workers):
    with pytest.raises(BaechiError) as caught:
        method(name).runner(bowl(), workers, 0)
    assert caught.value.code == "B832"


def test_costs_out_of_range_are_one_error():
    with pytest.raises(BaechiError) as caught:
        Costs(bytes_per_second=0.0)
    assert caught.value.code == "B833"


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [("h", "4", 4), ("lr", "1e-2", 0.01), ("nesterov", "yes", True), ("c1", "sign", "sign"), ("milestones", "3", (3,))],
)
def test_options_from_text(option, text, value):
    assert option_from_text("cser", option, text) == value


@pytest.mark.parametrize(("option", "text"), [("h", "x"), ("nesterov", "1"), ("such", "1"), ("milestones", "1,,2")])
def test_options_that_cannot_be_read_are_one_error(option, text):
    with pytest.raises(BaechiError) as caught:
        option_from_text("cser", option, text)
    assert caught.value.code == "B831"


def test_rates():
    o = method("sync-sgd", lr=1.0, warmup=4, milestones=(10, 20), decay=0.5)
    assert [o.rate(t) for t in (0, 3, 9, 10, 25)] == [0.25, 1.0, 1.0, 0.5, 0.25]
    assert method("fedpbc", lr=0.1, horizon=50).rate(150) == pytest.approx(0.05)


def test_momentum_is_torchs():
    data = problem("quadratic", workers=1, size=20, noise=0.1)
    for nesterov in (False, True):
        made = Lockstep(method("sync-sgd", momentum=0.9, nesterov=nesterov, weight_decay=0.01), data, 1)
        x = torch.nn.Parameter(data.start(0))
        theirs = torch.optim.SGD([x], lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.01)
        for t in range(8):
            x.grad = data.gradient(x.detach(), 0, t)[1]
            theirs.step()
            made.step()
        torch.testing.assert_close(made.model(), x.detach(), rtol=0, atol=1e-12)


def test_a_clipped_gradient_has_at_most_that_norm():
    data = problem("quadratic", workers=1, size=20)
    made = Lockstep(method("sync-sgd", clip=0.5, lr=1.0), data, 1)
    before = made.model().clone()
    made.step()
    assert float((made.model() - before).norm()) == pytest.approx(0.5)
