"""Clusters of peers against every assignment there is, and bad input."""

from itertools import product
from pathlib import Path
from random import Random

import pytest

from baechi.errors import BaechiError, Infeasible
from baechi.ir.cluster import Device
from baechi.replicas.ravnest.formation import EXACT, form, penalty
from baechi.replicas.ravnest.nodes import Node, cluster_of, read_nodes

MIB = 1 << 20


def peers(seed: int, count: int) -> list[Node]:
    random = Random(seed)
    return [
        Node(Device(f"p{i}", random.randint(1, 16) * MIB), random.choice((1, 2, 5, 10)) * MIB) for i in range(count)
    ]


def least(nodes: list[Node], need: int, clusters: int) -> float:
    """Over every assignment in which no cluster is empty, by the formula written out."""
    best = float("inf")
    for home in product(range(clusters), repeat=len(nodes)):
        if len(set(home)) < clusters:
            continue
        groups = [[n for n, h in zip(nodes, home, strict=True) if h == c] for c in range(clusters)]
        short = sum(max(0.0, (need - sum(n.memory_bytes for n in g)) / MIB) for g in groups)
        times = [sum(n.memory_bytes / n.bytes_per_second for n in g) for g in groups]
        best = min(best, 100 * short + max(times) - min(times))
    return best


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("clusters", [1, 2, 3])
def test_a_few_peers_are_divided_best(seed: int, clusters: int) -> None:
    nodes = peers(seed, 7)
    need = sum(n.memory_bytes for n in nodes) // 4
    try:
        found = form(nodes, need, clusters)
    except Infeasible:
        assert least(nodes, need, clusters) >= 100 / MIB
        return
    assert found.penalty == pytest.approx(least(nodes, need, clusters))
    assert penalty(nodes, found.clusters, need) == pytest.approx(found.penalty)
    assert sorted(i for members in found.clusters for i in members) == list(range(7))


@pytest.mark.parametrize("seed", range(4))
def test_local_search_finds_the_best_too(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = peers(seed, 8)
    need = sum(n.memory_bytes for n in nodes) // 4
    monkeypatch.setattr("baechi.replicas.ravnest.formation.EXACT", 0)
    assert form(nodes, need, 2, seed=1).penalty == pytest.approx(least(nodes, need, 2))


def test_many_peers_are_divided_well_and_always_the_same() -> None:
    nodes = peers(9, 40)
    need = sum(n.memory_bytes for n in nodes) // 6
    found = form(nodes, need, 5, seed=3)
    assert found == form(nodes, need, 5, seed=3)
    assert found.shortage_bytes == 0
    assert found.penalty < 0.02 * sum(n.drain_seconds for n in nodes) / 5


def test_there_are_as_many_clusters_as_hold_the_model() -> None:
    nodes = [Node(Device(f"p{i}", size * MIB), MIB) for i, size in enumerate((6, 6, 5, 5, 4, 4))]
    assert len(form(nodes, 10 * MIB).clusters) == 3
    assert len(form(nodes, 11 * MIB).clusters) == 2
    assert len(form(nodes, 30 * MIB).clusters) == 1
    assert len(form(nodes, 1).clusters) == 6


def test_a_model_that_no_clusters_hold_is_refused() -> None:
    nodes = peers(0, 4)
    total = sum(n.memory_bytes for n in nodes)
    with pytest.raises(Infeasible) as error:
        form(nodes, total + 1)
    assert error.value.code == "B855"
    assert error.value.proved
    with pytest.raises(Infeasible):
        form(nodes, total // 2 + MIB, 2)
    for clusters in (0, 5):
        with pytest.raises(BaechiError) as wrong:
            form(nodes, 1, clusters)
        assert wrong.value.code == "B854"
    assert EXACT >= 8


def test_peers_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "peers.toml"
    path.write_text(
        '[[peer]]\nname = "big"\npreset = "rtx3060"\nbandwidth = "12MB/s"\nlatency = "5ms"\n'
        '[[peer]]\nname = "pi"\ncount = 2\nmemory = "1GiB"\nbandwidth = 2e6\n'
    )
    big, first, second = read_nodes(path)
    assert (big.name, big.bytes_per_second, big.latency_seconds) == ("big", 12e6, 0.005)
    assert big.memory_bytes > 8 << 30
    assert (first.name, second.name, first.memory_bytes) == ("pi:0", "pi:1", 1 << 30)
    cluster = cluster_of([big, first])
    assert cluster.link_between("pi:0", "big").bytes_per_second == 2e6
    assert len({d.host for d in cluster.devices}) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "peer = 3",
        "peer = []",
        "[[peer]\n",
        '[[peer]]\nmemory = "1GiB"\n',
        '[[peer]]\nmemory = "1GiB"\nbandwidth = "fast"\n',
        '[[peer]]\nmemory = "1GiB"\nbandwidth = 0\n',
        '[[peer]]\nmemory = "1GiB"\nbandwidth = true\n',
        '[[peer]]\nmemory = "1GiB"\nbandwidth = "1MB"\nlatency = "soon"\n',
        '[[peer]]\nmemory = "30%"\nbandwidth = "1MB"\n',
        '[[peer]]\nbandwidth = "1MB"\n',
        '[[peer]]\nmemory = "1GiB"\nbandwidth = "1MB"\nfast = 1\n',
        '[[peer]]\nname = "a"\nmemory = "1GiB"\nbandwidth = "1MB"\n[[peer]]\nname = "a"\nmemory = "1GiB"\nbandwidth = 1\n',
        '[device]\nname = "a"\n',
    ],
)
def test_a_file_that_names_no_peers_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "peers.toml"
    path.write_text(text)
    with pytest.raises(BaechiError) as error:
        read_nodes(path)
    assert error.value.code == "B854"
    with pytest.raises(BaechiError):
        read_nodes(tmp_path / "none.toml")


def test_a_peer_without_rates_is_none() -> None:
    for device, rate, wait in ((Device("a"), 1.0, 0.0), (Device("a", 8), 0.0, 0.0), (Device("a", 8), 1.0, -1.0)):
        with pytest.raises(BaechiError) as error:
            Node(device, rate, wait)
        assert error.value.code == "B854"
