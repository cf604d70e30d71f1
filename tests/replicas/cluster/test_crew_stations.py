"""Peers of clusters in threads of one process: the stations of the Ray carrier against plain torch and the simulator."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baechi.errors import BaechiError
from baechi.frontends.pytorch import capture
from baechi.ir.cluster import Device
from baechi.replicas.cluster.body import Ended
from baechi.replicas.cluster.crew_session import CrewSession, Post
from baechi.replicas.cluster.crew_settings import crew_options
from baechi.replicas.cluster.roll import Roll
from baechi.replicas.cluster.settings import is_crew
from baechi.replicas.cluster.station import Station
from baechi.replicas.ravnest.nodes import Node
from baechi.replicas.ravnest.pipeline import run, workers_of
from baechi.replicas.ravnest.train import average_stages

LOSS = nn.functional.mse_loss
COUNT = 12


def build() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))


def batches(count: int, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(seed)
    return [(torch.randn(4, 8, generator=g), torch.randn(4, 1, generator=g)) for _ in range(count)]


def program() -> Any:
    x, y = batches(1)[0]
    sgd = {"optimizer": "sgd", "optimizer_options": {"lr": 0.1, "momentum": 0.9}}
    return capture(build(), (x,), target=y, loss=LOSS, **sgd)


def plain(clusters: int, *members: int) -> nn.Sequential:
    """Synchronous SGD on the mean gradient of the batches of all clusters, or of some."""
    model, data = build(), batches(clusters * COUNT)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for i in range(COUNT):
        optimizer.zero_grad()
        own = [data[clusters * i + c] for c in members or range(clusters)]
        torch.stack([LOSS(model(x), y) for x, y in own]).mean().backward()
        optimizer.step()
    return model


class Peers:
    """Peers that send by calling."""

    def __init__(self, count: int, memory: int, **options: Any) -> None:
        nodes = tuple(Node(Device(f"p{i}", memory, flops_per_second={"float32": 1e6}), 1e7) for i in range(count))
        self.roll, self.posts, self.errors = Roll(), dict[int, Post](), dict[int, BaseException]()
        self.losses: dict[int, list[float]] = {}
        self.stations = [Station(node.name, self._send) for node in nodes]
        ask = lambda peer, done, averages: self.stations[peer].weights(done, averages)
        self.sessions = [
            CrewSession(i, nodes, self.stations[i], self.roll, ask, **options)
            for i in range(count)  # type: ignore[arg-type]
        ]

    def _send(self, to: int, what: str, arguments: Any) -> None:
        getattr(self.stations[to], what)(*arguments)

    def seat(self) -> None:
        x, y = batches(1)[0]
        for i, session in enumerate(self.sessions):
            self.posts[i] = Post(session, program(), build, [x, y], 1)

    def train(self, count: int = COUNT, data: int = COUNT) -> None:
        threads = [threading.Thread(target=self._train, args=(i, count, data)) for i in self.posts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    def _train(self, i: int, count: int, data: int) -> None:
        post = self.posts[i]
        try:
            self.losses[i] = post.train(post.part(batches(data * post.clusters)), count)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.errors[i] = error


@pytest.mark.parametrize("clusters", [1, 2])
def test_one_micro_batch_at_a_time_is_plain_sgd(clusters: int) -> None:
    peers = Peers(2 * clusters, 16_000, clusters=clusters, under_way=1, average_every=1, average_optimizer=True)
    peers.seat()
    peers.train()
    assert not peers.errors
    assert {post.stages for post in peers.posts.values()} == {2}
    expected = dict(plain(clusters).named_parameters())
    for post in peers.posts.values():
        found = post.weights()
        assert found.keys() == expected.keys()
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name].detach(), rtol=1e-5, atol=1e-6)
    statuses = [station.status() for station in peers.stations]
    assert {s["staleness"] for s in statuses} == {0}
    assert [len(peers.losses[i]) for i, post in peers.posts.items() if post.is_last] == [COUNT] * clusters


def test_with_more_under_way_gradients_are_late_but_within_the_bound() -> None:
    peers = Peers(4, 16_000, clusters=2, average_every=4)
    peers.seat()
    peers.train()
    assert not peers.errors
    for station in peers.stations:
        status = station.status()
        assert (status["microbatches"], status["averages"]) == (COUNT, COUNT // 4)
        assert status["staleness"] <= status["under_way"] or status["stage"] != 0
        assert status["staleness"] <= 1
    weights = [post.weights() for post in peers.posts.values()]
    assert all(torch.equal(weights[0][n], other[n]) for other in weights for n in weights[0])


def test_the_stages_are_those_that_the_simulator_carries() -> None:
    """The same stages, averaged at the same times, one micro-batch at a time: the same bits."""
    peers = Peers(4, 16_000, clusters=2, under_way=1, average_every=3)
    peers.seat()
    layout = peers.roll.layout()
    assert not isinstance(layout, Ended)
    made = program()
    cuts = [layout.cut(made, c, 1) for c in range(2)]
    values = dict(build().named_parameters())
    clusters = [
        [cut.stage(s, {n: values[n].detach().clone() for n in cut.names(s)}) for s in range(cut.count)] for cut in cuts
    ]
    data = batches(2 * COUNT)
    for start in range(0, COUNT, 3):
        for c in range(2):
            own = [((x,), (y,)) for x, y in data[c::2][start : start + 3]]
            run(workers_of(clusters[c], 1), own, first=start)
        average_stages(clusters)
    peers.train()
    for c, stages in enumerate(clusters):
        found = peers.posts[layout.peers[c][0]].weights()
        for stage in stages:
            for name, parameter in stage.parameters.items():
                assert torch.equal(found[name], parameter.detach()), name


def test_a_cluster_that_loses_a_peer_ends_and_the_others_average_without_it() -> None:
    peers = Peers(6, 16_000, clusters=3, under_way=1, average_every=1)
    peers.seat()
    layout = peers.roll.layout()
    assert not isinstance(layout, Ended)
    lost = layout.peers[1][0]
    dead = peers.posts.pop(lost)
    peers.posts.pop(layout.peers[1][1])

    def die() -> None:
        peers.roll.lose(1)
        for station in peers.stations:
            station.gone(1, "it died")

    timer = threading.Timer(1.0, die)
    timer.start()
    peers.train()
    timer.join()
    assert not peers.errors, "the others were in the middle of an average"
    assert peers.roll.status()["gone"] == (1,)
    with pytest.raises(BaechiError, match="lost a peer") as caught:
        dead.train(batches(3), 3)
    assert caught.value.code == "B808"
    expected = dict(plain(3, 0, 2).named_parameters())
    for c in (0, 2):
        for name, value in peers.posts[layout.peers[c][0]].weights().items():
            torch.testing.assert_close(value, expected[name].detach(), rtol=1e-5, atol=1e-6)


def test_a_run_without_the_memory_says_so_to_all() -> None:
    peers = Peers(2, 300)
    codes = set()
    for i in range(2):
        with pytest.raises(BaechiError) as caught:
            Post(peers.sessions[i], program(), build, [*batches(1)[0]], 1)
        codes.add(caught.value.code)
    assert codes == {"B855"}


def test_alone_the_script_trains_as_before() -> None:
    post = Post(CrewSession(), program(), build, [*batches(1)[0]], 1)
    assert (post.cluster, post.clusters, post.stage, post.stages, post.is_last) == (0, 1, 0, 1, True)
    losses = post.train(iter(batches(COUNT)), 5) + post.train(batches(COUNT)[5:], COUNT - 5)
    expected = plain(1)
    assert all(torch.equal(post.weights()[n], p.detach()) for n, p in expected.named_parameters())
    assert losses[-1] != losses[0]


def test_it_goes_on_from_a_checkpoint_with_the_same_numbers(tmp_path: Path) -> None:
    options: dict[str, Any] = {"clusters": 2, "under_way": 1, "average_every": 3, "average_optimizer": True}
    plain = Peers(4, 16_000, **options)
    plain.seat()
    plain.train()
    kept = {**options, "checkpoint": str(tmp_path), "checkpoint_every": 3}
    first = Peers(4, 16_000, **kept)
    first.seat()
    first.train(6, COUNT)
    assert [folder.name for folder in sorted(tmp_path.iterdir())] == ["step-000000003", "step-000000006"]
    (tmp_path / "step-000000009").mkdir()  # not all had written when the run was killed
    again = Peers(4, 16_000, **kept, resume=True)
    again.seat()
    again.train()
    assert not first.errors | again.errors
    for i, post in plain.posts.items():
        found = again.posts[i].weights()
        assert all(torch.equal(found[n], value) for n, value in post.weights().items())
        assert again.losses[i] == plain.losses[i][6:]
        assert again.stations[i].status()["microbatches"] == COUNT
    left = [folder for folder in sorted(tmp_path.iterdir()) if len(list(folder.iterdir())) == 4]
    assert [folder.name for folder in left][-1] == f"step-{COUNT:09d}"
    assert len(list(tmp_path.iterdir())) <= 3, "the old ones go"
    for path in tmp_path.glob("*/*.pt"):
        torch.save({**torch.load(path), "graph": "other"}, path)
    with pytest.raises(BaechiError, match="another model") as caught:
        Peers(4, 16_000, **kept, resume=True).seat()
    assert caught.value.code == "B804"


def short() -> Iterator[tuple[Tensor, Tensor]]:
    yield from batches(2)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([(torch.ones(3, 8), torch.ones(4, 1))], r"\(3, 8\)"),
        ([(torch.ones(4, 8), torch.ones(4, 1).double())], "float64"),
        ([((torch.ones(4, 8), torch.ones(4, 8)), torch.ones(4, 1))], "3 inputs"),
        (short(), "2 micro-batches"),
    ],
)
def test_data_that_does_not_fit_is_one_error(given: Any, says: str) -> None:
    post = Post(CrewSession(), program(), build, [*batches(1)[0]], 1)
    with pytest.raises(BaechiError, match=says) as caught:
        post.train(given, 3)
    assert caught.value.code == "B858"


PEERS = '[[peer]]\nname = "a"\nmemory = "1MiB"\nflops_per_second = {float32 = 1e6}\nbandwidth = "1MB"\n'


def test_options_come_from_flags_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "peers.toml").write_text(PEERS, encoding="utf-8")
    path = tmp_path / "run.toml"
    path.write_text('algorithm = "ravnest"\npeers = "peers.toml"\naverage-every = 7\n', encoding="utf-8")
    assert is_crew(str(path), {})
    options = crew_options(str(path), {"under_way": 1})
    assert (options.session.average_every, options.session.under_way, options.address) == (7, 1, None)
    assert [node.name for node in options.session.nodes] == ["a"]


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        ({"algorithm": "ravnest"}, "B801", "peers"),
        ({"mixing": "pull"}, "B801", "no option 'mixing'"),
        ({"replicas": 4}, "B801", "no option 'replicas'"),
        ({"algorithm": "draco"}, "B801", "only ravnest"),
        ({"average_every": 0}, "B801", "average_every is 0"),
        ({"clusters": True}, "B801", "clusters is True"),
        ({"placer": "nobody"}, "B505", "nobody"),
        ({"resume": True}, "B801", "nothing to resume"),
        ({"peers": "nowhere.toml"}, "B854", "nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused(flags: dict[str, Any], code: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "peers.toml").write_text(PEERS, encoding="utf-8")
    given = {"peers": str(tmp_path / "peers.toml"), **flags}
    if flags == {"algorithm": "ravnest"}:
        given = flags
    with pytest.raises(BaechiError, match=says) as caught:
        crew_options(flags=given)
    assert caught.value.code == code
