"""A replica as its script sees it: alone, from a checkpoint, placed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import baechi
from baechi.errors import BaechiError
from baechi.replicas.cluster.hub import Hub, HubOptions, Lost
from baechi.replicas.cluster.session import Replica, Session, enter, join
from baechi.replicas.peer import Message, Snapshot


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    yield
    enter(Session())


def nobody(to: int, message: Message, patience: float) -> Message | None:
    raise Lost


def net() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))
    return model, torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)


def train(model: Any, optimizer: Any, replica: Replica | None, steps: Any) -> list[float]:
    losses = []
    for k in steps:
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(k))
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if replica is not None:
            replica.step(loss)
        losses.append(loss.item())
    return losses


def test_a_script_alone_trains_as_without() -> None:
    plain = train(*net(), None, range(12))
    model, optimizer = net()
    replica = join(model, optimizer)
    assert train(model, optimizer, replica, replica.steps(12)) == plain
    assert (replica.index, replica.count, replica.done) == (0, 1, 12)
    assert replica.part(range(5)) == range(5)


def test_one_replica_in_a_hub_trains_bit_for_bit_as_without() -> None:
    plain = train(*net(), None, range(12))
    enter(Session(hub=Hub(0, HubOptions(1), nobody)))
    model, optimizer = net()
    replica = join(model, optimizer)
    assert train(model, optimizer, replica, replica.steps(12)) == plain


def test_a_checkpoint_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    plain = train(*net(), None, range(20))
    kept = Session(checkpoint=str(tmp_path), checkpoint_every=5)
    enter(kept)
    model, optimizer = net()
    first = join(model, optimizer)
    assert train(model, optimizer, first, first.steps(12)) == plain[:12]
    assert [folder.name for folder in sorted(tmp_path.iterdir())] == ["step-000000005", "step-000000010"]
    enter(replace(kept, resume=True))
    model, optimizer = net()
    buffers = [b.clone() for b in model.buffers()]
    again = join(model, optimizer)
    assert again.done == 10
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), buffers, strict=True)), "buffers are not mixed"
    losses = train(model, optimizer, again, again.steps(20))
    assert losses == plain[10:], "batch statistics of training do not depend on the buffers"


def test_what_others_taught_is_in_the_weights_and_buffers_are_ones_own() -> None:
    hub = Hub(0, HubOptions(2), nobody)
    enter(Session(hub=hub, count=2))
    model, optimizer = net()
    replica = join(model, optimizer)
    before = [p.detach().clone() for p in model.parameters()]
    arrays = tuple(np.zeros(tuple(p.shape), np.float32) for p in model.parameters())
    hub.receive(Message("push", 1, Snapshot(1, 0, 1, 1, arrays, {1: 1})))
    replica.step()
    for now, was in zip(model.parameters(), before, strict=True):
        assert torch.allclose(now, 0.5 * was)


def test_narrow_types_go_as_float32_and_come_back() -> None:
    model = torch.nn.Linear(3, 2).to(torch.bfloat16)
    hub = Hub(0, HubOptions(2), nobody)
    enter(Session(hub=hub, count=2))
    replica = join(model)
    held = hub.model()
    assert held is not None
    assert {a.dtype for a in held} == {np.dtype(np.float32)}
    hub.receive(Message("push", 1, Snapshot(1, 0, 1, 1, tuple(a + 2 for a in held), {1: 1})))
    weight = model.weight.detach().clone()
    replica.step(0.5)
    assert model.weight.dtype == torch.bfloat16
    assert torch.allclose(model.weight, weight + 1, atol=0.02)


def test_a_placed_module_and_a_placed_step_are_replicas_too() -> None:
    model = baechi.place(torch.nn.Linear(4, 1), cluster="2x1MiB")
    replica = join(model)
    train(model, torch.optim.SGD(model.parameters(), 0.1), replica, range(2))
    plain = torch.nn.Linear(4, 1)
    example = torch.zeros(8, 4)
    made = baechi.plan(plain, (example,), loss=torch.sum, optimizer="sgd", cluster="2x1MiB")
    hub = Hub(0, HubOptions(2), nobody)
    enter(Session(hub=hub, count=2))
    with made.apply(plain) as step:
        replica = join(step)
        step(example)
        zeros = tuple(np.zeros(tuple(p.shape), np.float32) for p in plain.parameters())
        hub.receive(Message("push", 1, Snapshot(1, 0, 1, 1, zeros, {1: 1})))
        weight = step.executor.parameters["weight"].clone()
        replica.step()
        assert torch.allclose(step.executor.parameters["weight"], 0.5 * weight, atol=1e-6)


def test_what_cannot_be_a_replica_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(BaechiError, match="function has no weights") as caught:
        join(net)
    assert caught.value.code == "B802"
    with pytest.raises(BaechiError, match="no parameters"):
        join(torch.nn.ReLU())
    enter(Session(checkpoint=str(tmp_path), checkpoint_every=1))
    join(torch.nn.Linear(2, 2)).step()
    enter(Session(checkpoint=str(tmp_path), resume=True))
    with pytest.raises(BaechiError, match="of another model") as caught:
        join(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    assert caught.value.code == "B804"
    next(tmp_path.glob("*/rank-0.pt")).write_bytes(b"no checkpoint")
    with pytest.raises(BaechiError, match="cannot be read") as caught:
        join(torch.nn.Linear(2, 2))
    assert caught.value.code == "B804"


def test_a_full_disk_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    enter(Session(checkpoint=str(tmp_path / "file"), checkpoint_every=1))
    with pytest.raises(BaechiError, match="no checkpoint can be written") as caught:
        join(torch.nn.Linear(2, 2)).step()
    assert caught.value.code == "B804"
