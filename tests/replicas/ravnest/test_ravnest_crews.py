"""Clusters with stages cut by our placers: memory with old weights, pace, and training of what was cut."""

import copy
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from baechi.cli.main import main
from baechi.errors import BaechiError, Infeasible
from baechi.frontends.pytorch import capture
from baechi.ir.cluster import Device
from baechi.ir.graph import Graph
from baechi.ir.verify import verify
from baechi.replicas.ravnest.crews import assemble, averaging, need_bytes
from baechi.replicas.ravnest.nodes import Node
from baechi.replicas.ravnest.pipeline import Batch
from baechi.replicas.ravnest.rings import average
from baechi.replicas.ravnest.stage import Stage
from baechi.replicas.ravnest.train import sequential_parts, train

LOSS = nn.functional.cross_entropy


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.02, momentum=0.5)


def chain(seed: int = 0, width: int = 64) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(6)]
    module = nn.Sequential(*layers, nn.Linear(width, 4))
    for parameter in module.parameters():
        if parameter.dim() == 2:
            nn.init.kaiming_normal_(parameter)
    return module


@pytest.fixture(scope="module")
def step() -> Graph:
    x, y = torch.randn(8, 64), torch.randint(4, (8,))
    return capture(chain(), (x,), loss=LOSS, target=y, optimizer="momentum", optimizer_options={"lr": 0.1}).graph


def nodes(*shares: float, need: int) -> list[Node]:
    rates = {"flops_per_second": {"float32": 1e9}, "bytes_per_second": 1e9, "launch_seconds": 1e-6}
    return [Node(Device(f"p{i}", int(need * share), **rates), 1e7) for i, share in enumerate(shares)]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def need(step: Graph) -> int:
    return need_bytes(step, nodes(1.0, need=1 << 20))


def test_each_cluster_holds_the_model_with_its_old_weights(step: Graph, need: int) -> None:
    peers = nodes(0.8, 0.7, 0.9, 0.6, 1.5, need=need)
    formation, crews = assemble(step, peers, 2)
    assert formation.shortage_bytes == 0
    for crew, members in zip(crews, formation.clusters, strict=True):
        assert not verify(step, crew.plan)
        memory = {peers[i].name: peers[i].memory_bytes for i in members}
        assert {s.peer for s in crew.stages} | set(crew.idle) == set(memory)
        weights = sum(t.nbytes for op in step.ops if op.kind == "parameter" for t in op.outputs)
        for share in crew.stages:
            assert share.peak_bytes == crew.plan.predicted.peak_bytes[share.peer] + share.stash_bytes
            assert share.peak_bytes <= memory[share.peer] == share.memory_bytes
        assert sum(s.weight_bytes for s in crew.stages) == weights
        assert all(s.stash_bytes == (crew.under_way - 1) * s.weight_bytes for s in crew.stages[:-1])
        assert crew.stages[-1].stash_bytes == 0
        assert 1 <= crew.under_way <= len(crew.stages)
        through = sum(s.seconds for s in crew.stages)
        assert crew.rate == pytest.approx(min(1 / max(s.seconds for s in crew.stages), crew.under_way / through))
        slowest = max(crew.plan.predicted.load_seconds.values())
        assert crew.rate <= 1 / slowest


def test_there_are_as_many_clusters_as_can_be_cut(step: Graph, need: int) -> None:
    _, pairs = assemble(step, nodes(*[0.51] * 6, need=need))
    assert [len(crew.stages) for crew in pairs] == [2, 2, 2]
    assert {crew.under_way for crew in pairs} == {1}  # there is no room for old weights
    _, roomy = assemble(step, nodes(*[0.8] * 6, need=need), 3)
    assert {crew.under_way for crew in roomy} == {2}
    _, one_each = assemble(step, nodes(1.1, 1.1, need=need))
    assert [len(crew.stages) for crew in one_each] == [1, 1]


def test_what_an_average_sends_is_what_the_rings_send(step: Graph, need: int) -> None:
    peers = nodes(0.9, 0.9, 0.9, 0.6, 0.6, need=need)
    _, crews = assemble(step, peers, 2)
    held = [
        [
            {
                op.name: np.zeros(op.outputs[0].nbytes // 4, np.float32)
                for op in step.ops
                if op.kind == "parameter" and crew.plan.device[op.name] == share.peer
            }
            for share in crew.stages
        ]
        for crew in crews
    ]
    found = average(held, [op.name for op in step.ops if op.kind == "parameter"])
    cost = averaging(step, crews, peers)
    assert cost.rings == len(found.rings)
    assert cost.sent_bytes == pytest.approx(max(b for sent in found.sent_bytes for b in sent), abs=4 * len(found.rings))
    assert cost.seconds == pytest.approx(cost.sent_bytes / 1e7)


def test_what_cannot_be_held_is_refused(step: Graph, need: int) -> None:
    for peers, clusters in ((nodes(0.4, 0.4, need=need), None), (nodes(*[0.13] * 8, need=need), 1)):
        with pytest.raises(Infeasible) as error:
            assemble(step, peers, clusters)
        assert error.value.code == "B855"


def test_two_clusters_that_cut_it_differently_train_one_model(step: Graph, need: int) -> None:
    cuts = []
    for shares in ((0.9, 0.9), (0.6, 0.6, 0.9)):
        _, (crew,) = assemble(step, nodes(*shares, need=need), 1)
        cuts.append(tuple(len(part) for part in sequential_parts(chain(), step, crew.plan)))
    assert all(sum(cut) == 7 for cut in cuts)
    assert cuts[0] != cuts[1]
    clusters = []
    for cut in cuts:
        module, at = chain(), 0
        stages = []
        for k, length in enumerate(cut):
            stages.append(Stage(module[at : at + length], sgd, LOSS if k == len(cut) - 1 else None))
            at += length
        clusters.append(stages)
    torch.manual_seed(1)
    x = torch.randn(64, 64)
    y = x[:, :4].argmax(1)
    order = [torch.randperm(64) for _ in range(2)]
    batches: list[list[Batch]] = [[((x[o[i % 8 :: 8]],), y[o[i % 8 :: 8]]) for i in range(48)] for o in order]
    done = train(clusters, batches, reduce_every=8)
    assert len(done.averages) == 6
    for c in range(2):
        assert sum(done.losses(c)[-8:]) < 0.5 * sum(done.losses(c)[:8])
    first, second = ({n: p for s in stages for n, p in s.parameters.items()} for stages in clusters)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[n], second[n]) for n in first)


@pytest.mark.parametrize("average_optimizer", [False, True])
def test_averaging_each_micro_batch_is_synchronous_data_parallelism(average_optimizer: bool) -> None:
    """One stage a cluster: the mean of the models after a step of each is a step of the mean gradient."""
    generator = torch.Generator().manual_seed(2)
    batches: list[list[Batch]] = [
        [((torch.randn(8, 64, generator=generator),), torch.randint(4, (8,), generator=generator)) for _ in range(5)]
        for _ in range(3)
    ]
    clusters = [[Stage(chain(), sgd, LOSS)] for _ in range(3)]
    train(clusters, batches, reduce_every=1, average_optimizer=average_optimizer)
    plain = chain()
    optimizer = sgd(plain.parameters())
    for i in range(5):
        optimizer.zero_grad()
        (sum(LOSS(plain(own[i][0][0]), own[i][1]) for own in batches) / 3).backward()  # type: ignore[union-attr]
        optimizer.step()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(clusters[0][0].parameters[name], parameter, rtol=1e-4, atol=1e-6)
    momenta = [c[0].optimizer.state[c[0].parameters["6.bias"]]["momentum_buffer"] for c in clusters]  # type: ignore[union-attr]
    assert torch.equal(momenta[0], momenta[1]) == average_optimizer


def test_a_peer_that_dies_keeps_its_slice_to_itself() -> None:
    clusters = [[Stage(chain(c)[:cut], sgd), Stage(chain(c)[cut:], sgd, LOSS)] for c, cut in ((0, 2), (1, 5))]
    before = copy.deepcopy({n: p.detach() for n, p in clusters[1][1].parameters.items()})
    batches: list[list[Batch]] = [[], []]
    with pytest.raises(BaechiError):
        train(clusters, batches, reduce_every=0)
    from baechi.replicas.ravnest.train import average_stages

    found = average_stages(clusters, deaths={(1, 1): 0})
    assert all(torch.equal(before[n], p) for n, p in clusters[1][1].parameters.items())
    assert [1 in one for one in found.skipped] == [ring.stages[1] == 1 for ring in found.rings]
    shared = clusters[0][0].parameters["0.0.weight"]
    assert torch.equal(shared, clusters[1][0].parameters["0.0.weight"])


def test_data_that_does_not_fit_is_refused() -> None:
    stage = [Stage(chain(), sgd, LOSS)]
    batch: Batch = ((torch.ones(1, 64),), torch.zeros(1, dtype=torch.long))
    for batches in ([], [[batch], [batch]], [[batch]] * 3):
        with pytest.raises(BaechiError) as error:
            train([stage], batches, reduce_every=1)
        assert error.value.code == "B858"


PEERS = """
[[peer]]
name = "board"
count = 3
memory = "7MiB"
flops_per_second = {float32 = 1e9}
bandwidth = "10MB/s"
latency = "1ms"

[[peer]]
name = "tower"
memory = "40MiB"
flops_per_second = {float32 = 1e10}
bandwidth = "100MB/s"
"""


def test_the_command_prints_clusters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "peers.toml"
    path.write_text(PEERS)
    words = ["replicas", "clusters", "--peers", str(path), "models:mlp"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "baechi/replicas-clusters/1"
    names = [s["peer"] for c in found["clusters"] for s in c["stages"]] + [
        n for c in found["clusters"] for n in c["idle"]
    ]
    assert sorted(names) == ["board:0", "board:1", "board:2", "tower"]
    rates = [c["microbatches_per_second"] for c in found["clusters"]]
    assert found["microbatches_per_second"] == pytest.approx(sum(rates))
    assert all(s["peak_bytes"] <= s["memory_bytes"] for c in found["clusters"] for s in c["stages"])
    assert found["average"]["rings"] >= 1
    assert main(words) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "4 peers make 2 clusters" in text


def test_the_command_says_no_and_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "peers.toml"
    path.write_text(PEERS)
    words = ["replicas", "clusters", "--peers", str(path), "models:mlp"]
    for more, rc, code in (
        (["--clusters", "4"], 1, "B855"),
        (["--clusters", "9"], 2, "B854"),
        (["--placer", "nobody"], 2, "B505"),
    ):
        assert main([*words, *more]) == rc
        assert f"error[{code}]" in capsys.readouterr().err
    assert main(["replicas", "clusters", "--peers", str(tmp_path / "none"), "models:mlp"]) == 2
    assert "error[B854]" in capsys.readouterr().err
