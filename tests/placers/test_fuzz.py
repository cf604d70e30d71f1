"""Many random graphs under ever smaller caps: a plan fits, by the reference simulator, or there is none."""

from collections import Counter
from types import ModuleType

import pytest

from baechi.errors import Infeasible
from baechi.ir.cluster import CONTENTIONS, Cluster, Device, Link
from baechi.ir.verify import verify
from baechi.models.graphs import random_dag
from baechi.placers import Single, get_placer

DEVICES = 4
DAGS = 8
FRACTIONS = (1.0, 0.6, 0.4, 0.34)


def cluster(nbytes: int, count: int, seed: int) -> Cluster:
    devices = tuple(Device(f"d{k}", nbytes) for k in range(count))
    return Cluster(devices, Link(1e-6, 1e9), contention=CONTENTIONS[seed % 3])


@pytest.mark.parametrize("groups", [False, True], ids=["free", "groups"])
@pytest.mark.parametrize("placer", ["m-topo", "m-etf", "m-sct"])
def test_no_plan_is_over_a_cap(reference: ModuleType, placer: str, groups: bool) -> None:
    found: Counter[tuple[float, str]] = Counter()
    for seed in range(DAGS):
        graph = random_dag(seed, 30, groups=groups, shuffled=seed % 2 == 0)
        whole = Single().place(graph, cluster(1 << 50, 1, seed)).predicted.peak_bytes["d0"]
        for fraction in FRACTIONS:
            tight = cluster(max(1, int(whole * fraction)), DEVICES, seed)
            try:
                plan = get_placer(placer).place(graph, tight)
            except Infeasible as error:
                found[fraction, "proved" if error.proved else "not found"] += 1
                continue
            assert verify(graph, plan) == ()
            peaks = reference.peaks_of(graph, plan)
            assert peaks == plan.predicted.peak_bytes
            assert max(peaks.values()) <= tight.devices[0].cap
            found[fraction, "ok"] += 1
    assert found[1.0, "ok"] == DAGS
    assert found[0.6, "ok"] + found[0.6, "proved"] >= (DAGS * 3) // 4
