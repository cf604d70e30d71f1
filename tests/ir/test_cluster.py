"""Clusters: what they refuse, links, and memory fractions."""

import pytest

from baechi.errors import BaechiError
from baechi.ir.cluster import Cluster, Device, Link


@pytest.mark.parametrize(
    "arguments",
    [
        {"devices": ()},
        {"devices": (Device("a", 1), Device("a", 1))},
        {"devices": (Device("a", 0),)},
        {"devices": (Device("a", 1),), "contention": "polite"},
        {"devices": (Device("a", 1),), "links": {("a", "b"): Link()}},
    ],
)
def test_what_a_cluster_refuses(arguments: dict[str, object]) -> None:
    with pytest.raises(BaechiError) as caught:
        Cluster(**arguments)  # type: ignore[arg-type]
    assert caught.value.code == "B304"


def test_a_transfer_takes_latency_and_bytes_over_bandwidth() -> None:
    slow = Link(1e-3, 1e6)
    cluster = Cluster((Device("a", 1), Device("b", 1)), Link(1e-6, 1e9), {("a", "b"): slow})
    assert cluster.link_between("a", "b").seconds(2_000_000) == pytest.approx(2.001)
    assert cluster.link_between("b", "a").seconds(2_000_000) == pytest.approx(0.002001)


def test_fractions_become_bytes_of_the_peak() -> None:
    cluster = Cluster((Device("a", memory_fraction=0.3), Device("b", 77)))
    assert cluster.needs_peak
    with pytest.raises(BaechiError, match="'a' is not known yet"):
        _ = cluster.devices[0].cap
    resolved = cluster.resolve(1000)
    assert [d.cap for d in resolved.devices] == [300, 77]
    assert not resolved.needs_peak


def test_the_digest_sees_the_order_of_devices() -> None:
    a, b = Device("a", 1), Device("b", 1)
    assert Cluster((a, b)).digest != Cluster((b, a)).digest
    assert Cluster((a, b)).digest == Cluster((a, b)).digest
