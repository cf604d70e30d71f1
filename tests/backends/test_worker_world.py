"""A worker whose part will not come ends with the reason, whatever became of the one that planned."""

import socket

import pytest
import torch
from torch import distributed as dist
from torch import nn

from baechi.api import plan
from baechi.backends.pytorch.workers import emit
from baechi.backends.pytorch.workers.world import World, find_world
from baechi.errors import BaechiError


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a world of two workers; this process is rank 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    return known


def planned(loss: object) -> object:
    return plan(nn.Linear(3, 2), (torch.ones(4, 3),), loss=loss, cluster="1x1MiB", placer="single")


def test_the_others_hear_of_a_plan_with_another_number_of_workers(address: dict[str, str]) -> None:
    with pytest.raises(BaechiError) as first:
        planned(torch.sum).worker(nn.Linear(3, 2))  # type: ignore[attr-defined]
    assert first.value.code == "B618"
    with pytest.raises(BaechiError) as other:
        find_world({**address, "RANK": "1"}).part()
    assert other.value.code == "B617"
    assert "rank 0 failed: the plan needs 1 workers (cpu:0), 2 were started" in other.value.what


def test_the_others_hear_of_an_error_of_any_kind(address: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(emit, "make_parts", broken)
    with pytest.raises(ZeroDivisionError) as first:
        planned(torch.sum).worker(nn.Linear(3, 2))  # type: ignore[attr-defined]
    with pytest.raises(BaechiError, match="rank 0 failed: ZeroDivisionError: division by zero"):
        find_world({**address, "RANK": "1"}).part()
    assert first.value is not None  # its frames hold the store


def test_a_worker_does_not_wait_for_a_store_that_is_gone() -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    mine = dist.TCPStore("127.0.0.1", store.port, is_master=False, wait_for_workers=False)
    del store
    with pytest.raises(BaechiError, match="rank 0 is gone") as raised:
        World(1, 2, mine).part()
    assert raised.value.code == "B617"
