"""What a hub takes of the host's memory: against the allocations of real hubs, and in the plans of a replica."""

import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import baechi
from baechi.errors import Infeasible
from baechi.frontends.pytorch import capture
from baechi.ir.cluster import Cluster, Device
from baechi.replicas.cluster.host_memory import beside_hub, hub_copies, model_bytes
from baechi.replicas.cluster.hub import Hub, HubOptions
from baechi.replicas.cluster.session import Session, enter, present
from baechi.replicas.draco_options import DracoOptions
from baechi.replicas.gossip import GossipOptions
from baechi.replicas.peer import Arrays, Message

FLOATS = 200_000


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    yield
    enter(Session())


def peak_copies(options: HubOptions) -> float:
    """Copies of the model that all hubs hold at most, by Python's own account of numpy's memory."""
    hubs: dict[int, Hub] = {}
    for i in range(options.count):
        hubs[i] = Hub(i, options, lambda to, message, patience: hubs[to].receive(message))
    tracemalloc.start()
    try:
        for hub in hubs.values():
            hub.meet(tuple(hubs))
            _all_ranks(options, lambda rank, hub=hub: hub.enter(rank, _model(0.0, options)))  # type: ignore[misc]
        for step in range(1, 13):
            for hub in hubs.values():
                for rank in range(options.shares):
                    hub.boundary(rank, step, _model(float(step), options), 1.0)
                for envelope in hub._turn():
                    hub._exchange(envelope)
        return tracemalloc.get_traced_memory()[1] / (4 * FLOATS)
    finally:
        tracemalloc.stop()


def _model(value: float, options: HubOptions) -> Arrays:
    return tuple(np.full(FLOATS // 2 // options.shares, value, np.float32) for _ in range(2))


def _all_ranks(options: HubOptions, act: Any) -> None:
    threads = [threading.Thread(target=act, args=(rank,)) for rank in range(options.shares)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    "options",
    [
        HubOptions(2, capacity=0.0),
        HubOptions(2, shares=2, capacity=0.0),
        HubOptions(2, capacity=0.0, gossip=GossipOptions("pull")),
        HubOptions(2, capacity=0.0, gossip=GossipOptions("push-sum")),
        HubOptions(4, capacity=0.0, gossip=GossipOptions(rule="median", newest=3)),
        HubOptions(2, capacity=0.0, draco=DracoOptions()),
    ],
    ids=["symmetric", "gang", "pull", "push-sum", "rule", "draco"],
)
def test_hubs_hold_no_more_than_is_charged_and_not_far_less(options: HubOptions) -> None:
    peak = peak_copies(options)
    assert peak <= options.count * hub_copies(options)
    assert peak >= 0.4 * options.count * hub_copies(options)


class Nobody:
    """Where nothing is handed in."""

    def enter(self, rank: int, arrays: Arrays) -> Arrays | None:
        return None

    def boundary(self, rank: int, step: int, arrays: Arrays, loss: float | None) -> Arrays | None:
        return None

    def put_on_wire(self, nbytes: int) -> None:
        return None

    def hear(self, message: Message) -> None:
        return None


def made(cluster: str | Cluster) -> Any:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
    options = {"loss": nn.functional.cross_entropy, "target": torch.zeros(4, dtype=torch.long)}
    sgd = {"optimizer": "sgd", "optimizer_options": {"lr": 0.1}}
    return baechi.plan(net, (torch.ones(4, 64),), **options, **sgd, cluster=cluster, placer="contiguous").plan


WEIGHTS = 4 * (64 * 64 + 64 + 64 * 8 + 8)


def test_a_plan_in_a_replica_leaves_room_for_its_hub() -> None:
    alone = made("2x400KiB")
    enter(Session(hub=Nobody(), options=HubOptions(4)))
    plan = made("2x400KiB")
    taken = hub_copies(HubOptions(4)) * WEIGHTS
    caps = [d.cap for d in plan.cluster.devices]
    assert [d.cap for d in alone.cluster.devices] == [400 << 10] * 2
    assert sum(caps) == pytest.approx((800 << 10) - taken, abs=2)
    assert all(plan.predicted.peak_bytes[d.name] <= d.cap for d in plan.cluster.devices)
    enter(Session())
    assert made("2x400KiB").cluster.devices == alone.cluster.devices


def test_what_fits_alone_may_not_fit_in_a_replica() -> None:
    room = made("1x1MiB").predicted.peak_bytes["cpu:0"] + WEIGHTS
    cluster = Cluster((Device("cpu:0", room, type="cpu"),))
    assert made(cluster).predicted.peak_bytes["cpu:0"] <= room
    enter(Session(hub=Nobody(), options=HubOptions(4)))
    with pytest.raises(Infeasible) as caught:
        made(cluster)
    assert caught.value.code in ("B501", "B811")
    with pytest.raises(Infeasible, match="host's memory") as caught:
        made(Cluster((Device("cpu:0", 4 * WEIGHTS, type="cpu"),)))
    assert caught.value.code == "B811"
    both = Cluster((Device("cpu:0", room + 10 * WEIGHTS, type="cpu"),))
    assert made(both).predicted.peak_bytes["cpu:0"] <= both.devices[0].cap - 6 * WEIGHTS


def test_only_processors_of_the_replicas_machine_share_its_memory() -> None:
    enter(Session(hub=Nobody(), options=HubOptions(4)))
    devices = (
        Device("cuda:0", 1 << 30, backend="cuda"),
        Device("cpu:0", 1 << 20),
        Device("far:0", 1 << 20, host="host1"),
    )
    found = beside_hub(_graph(), Cluster(devices), present())
    assert [d.cap for d in found.devices] == [1 << 30, (1 << 20) - 6 * WEIGHTS, 1 << 20]
    assert beside_hub(_graph(), Cluster(devices[:1]), present()).devices == devices[:1]
    assert beside_hub(_graph(), Cluster(devices), Session()).devices == devices


def _graph() -> Any:
    net = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8))
    return capture(net, (torch.ones(4, 64),), loss=torch.sum, optimizer="sgd").graph


def test_buffers_count_when_they_are_mixed_and_narrow_types_as_they_are_read() -> None:
    net = nn.BatchNorm1d(16)
    graph = capture(net, (torch.ones(4, 16),), loss=torch.sum, optimizer="sgd").graph
    assert model_bytes(graph) == 2 * 16 * 4
    assert model_bytes(graph, buffers=True) == 4 * 16 * 4, "not the count of batches"
    narrow = capture(nn.Linear(8, 2).bfloat16(), (torch.ones(4, 8).bfloat16(),), loss=torch.sum, optimizer="sgd").graph
    assert model_bytes(narrow) == 4 * 18
