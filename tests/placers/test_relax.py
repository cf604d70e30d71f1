"""m-SCT's linear programme against HiGHS, against brute force, and against the paper's own example."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from baechi.errors import BaechiError
from baechi.placers.relax import Favourites, favourites

Ints = NDArray[np.int64]
Dag = tuple[Ints, Ints, Ints, Ints]

FIGURE_1: Dag = (
    np.array([1, 3, 3, 1, 3, 1]),
    np.array([0, 1, 2, 0, 4, 5]),
    np.array([1, 2, 3, 4, 5, 3]),
    np.ones(6, np.int64),
)


def solve(dag: Dag, **options: int) -> Favourites:
    return favourites(*dag, **options)  # type: ignore[arg-type]


@st.composite
def dags(draw: st.DrawFn, most_nodes: int = 12, most_edges: int = 30) -> Dag:
    """Nodes whose numbers are not a topological order; some nodes and edges cost nothing."""
    n = draw(st.integers(1, most_nodes))
    name = draw(st.permutations(range(n)))
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=most_edges)) if pairs else []
    largest = draw(st.sampled_from([20, 10**12]))
    cost = st.one_of(st.just(0), st.integers(largest // 20, largest))
    ticks = draw(st.lists(cost, min_size=n, max_size=n))
    comm = draw(st.lists(cost, min_size=len(chosen), max_size=len(chosen)))
    src, dst = np.array([(name[i], name[j]) for i, j in chosen], np.int64).reshape(-1, 2).T
    return np.array(ticks, np.int64), src, dst, np.array(comm, np.int64)


def random_dag(kind: str, n: int, seed: int) -> Dag:
    """Layers of random width, or forks and joins one after another."""
    random = np.random.default_rng(seed)
    edges: list[tuple[int, int]] = []
    if kind == "layers":
        layer = np.sort(random.integers(0, max(2, n // 6), n))
        for j in range(n):
            near = np.flatnonzero((layer < layer[j]) & (layer >= layer[j] - 3))
            edges += [(int(i), j) for i in random.choice(near, min(len(near), random.integers(1, 4)), replace=False)]
    else:
        last = 0
        while last + 8 < n:
            edges += [(last, last + i) for i in range(1, 5)] + [(last + i, last + 5) for i in range(1, 5)]
            last += 5
    src, dst = np.array(edges).T
    name = random.permutation(n)
    ticks = np.exp(random.normal(18, 1.2, n)).astype(np.int64)
    return ticks, name[src], name[dst], np.exp(random.normal(18, 1, len(src))).astype(np.int64)


def longest_path(dag: Dag, x: NDArray[np.float64]) -> float:
    """By relaxing every edge n times."""
    ticks, src, dst, comm = dag
    start = np.zeros(len(ticks))
    for _ in range(len(ticks)):
        np.maximum.at(start, dst, start[src] + ticks[src] + comm * x)
    return float((start + ticks).max())


def optimum(dag: Dag) -> float:
    """The programme as the paper writes it, solved by HiGHS."""
    optimize = pytest.importorskip("scipy.optimize")
    ticks, src, dst, comm = dag
    n, m = len(ticks), len(src)
    scale = float(max(ticks.max(), comm.max(initial=0), 1))
    rows: list[NDArray[np.float64]] = []
    limits: list[float] = []
    for e in range(m):
        row = np.zeros(n + m + 1)
        row[src[e]], row[dst[e]], row[n + e] = 1, -1, comm[e] / scale
        rows.append(row)
        limits.append(-ticks[src[e]] / scale)
    for i in range(n):
        row = np.zeros(n + m + 1)
        row[i], row[-1] = 1, -1
        rows.append(row)
        limits.append(-ticks[i] / scale)
    for end, i in product((src, dst), range(n)):
        if (end == i).any():
            row = np.zeros(n + m + 1)
            row[n : n + m][end == i] = -1
            rows.append(row)
            limits.append(1.0 - (end == i).sum())
    bounds = [(0, None)] * n + [(0, 1)] * m + [(0, None)]
    found = optimize.linprog(np.eye(n + m + 1)[-1], A_ub=np.array(rows), b_ub=limits, bounds=bounds, method="highs")
    return float(found.fun) * scale


def check(dag: Dag, found: Favourites) -> None:
    """`x` obeys every row, attains the bound, and the favourites are a matching along edges."""
    ticks, src, dst, _ = dag
    assert ((found.x >= 0) & (found.x <= 1)).all()
    for end in (src, dst):
        assert np.bincount(end, 1 - found.x, len(ticks)).max() <= 1 + 1e-7
    path = longest_path(dag, found.x)
    assert path <= found.bound * (1 + 1e-6) * (1 + found.gap) + 1e-9
    if found.gap == 0:
        assert path >= found.bound * (1 - 1e-6)
    edges = set(zip(src.tolist(), dst.tolist(), strict=True))
    for i, j in enumerate(found.child.tolist()):
        if j >= 0:
            assert (i, j) in edges
            assert found.parent[j] == i
    assert (found.child >= 0).sum() == (found.parent >= 0).sum() == len(set(found.child[found.child >= 0].tolist()))


def test_figure_1_of_the_paper() -> None:
    found = solve(FIGURE_1)
    assert found.bound == pytest.approx(8)
    assert found.child.tolist() == [1, 2, 3, -1, 5, -1]
    assert found.parent.tolist() == [-1, 0, 1, 2, -1, 4]


def test_two_children_share_the_favour() -> None:
    """k = 1, 2, 3 and c = 4: 1 + 4 (1 - y) + 2 = 1 + 4 y + 3, so y = 3/8 and w = 5.5."""
    dag = np.array([1, 2, 3]), np.array([0, 0]), np.array([1, 2]), np.array([4, 4])
    found = favourites(*dag)
    assert found.bound == pytest.approx(5.5)
    np.testing.assert_allclose(found.x, [5 / 8, 3 / 8], atol=1e-6)
    assert found.child.tolist() == [-1, -1, -1]
    assert favourites(*dag, threshold=0.5).child.tolist() == [2, -1, -1]


@settings(max_examples=80)
@given(dags(), st.sampled_from([0.1, 0.5, 0.9]))
def test_optimum_is_that_of_highs(dag: Dag, threshold: float) -> None:
    found = favourites(*dag, threshold=threshold)
    assert found.gap == 0
    assert found.bound == pytest.approx(optimum(dag), rel=1e-6)
    check(dag, found)


@pytest.mark.parametrize("kind", ["layers", "forks"])
@pytest.mark.parametrize("seed", range(3))
def test_optimum_of_larger_graphs(kind: str, seed: int) -> None:
    dag = random_dag(kind, 250, seed)
    found = solve(dag)
    assert found.gap == 0
    assert found.bound == pytest.approx(optimum(dag), rel=1e-6)
    check(dag, found)


@pytest.mark.parametrize("kind", ["layers", "forks"])
def test_growing_reaches_the_optimum(kind: str) -> None:
    """From a few rows, in several portions."""
    dag = random_dag(kind, 200, 7)
    found = solve(dag, first_rows=20)
    assert found.gap == 0
    assert found.bound == pytest.approx(optimum(dag), rel=1e-6)
    check(dag, found)


@pytest.mark.parametrize("limit", [0, 50])
def test_a_limit_leaves_a_bound_and_a_gap(limit: int) -> None:
    dag = random_dag("layers", 200, 7)
    best = optimum(dag)
    found = solve(dag, limit=limit, first_rows=20)
    check(dag, found)
    assert found.bound <= best * (1 + 1e-9)
    path = longest_path(dag, found.x)
    assert path >= best * (1 - 1e-9)
    assert found.gap == pytest.approx(path / found.bound - 1, abs=2e-7)
    assert (found.gap > 0) == (limit == 0)


@settings(max_examples=40)
@given(dags(most_nodes=6, most_edges=8))
def test_no_choice_of_favourites_beats_the_bound(dag: Dag) -> None:
    """On unlimited devices, over every matching: the programme is a relaxation of it."""
    ticks, src, dst, _ = dag
    makespans = [
        longest_path(dag, 1.0 - np.array(chosen, float))
        for chosen in product((0, 1), repeat=len(src))
        if all(np.bincount(end, chosen, len(ticks)).max(initial=0) <= 1 for end in (src, dst))
    ]
    assert solve(dag).bound <= min(makespans) * (1 + 1e-6) + 1e-6


@settings(max_examples=30)
@given(dags(), st.randoms(use_true_random=False))
def test_the_order_of_the_edges_does_not_matter(dag: Dag, random: Callable[..., object]) -> None:
    ticks, src, dst, comm = dag
    order = np.array(random.sample(range(len(src)), len(src)), np.int64)  # type: ignore[attr-defined]
    found, again = solve(dag), favourites(ticks, src[order], dst[order], comm[order])
    assert found.bound == again.bound
    np.testing.assert_array_equal(found.x[order], again.x)
    np.testing.assert_array_equal(found.child, again.child)


def test_the_same_answer_twice() -> None:
    dag = random_dag("layers", 300, 1)
    one, two = solve(dag), solve(dag)
    assert one.x.tobytes() == two.x.tobytes()
    assert one.child.tobytes() == two.child.tobytes()


@pytest.mark.parametrize("n", [0, 1, 3])
def test_no_edges(n: int) -> None:
    none = np.zeros(0, np.int64)
    found = favourites(np.arange(n), none, none, none)
    assert found.bound == max(range(n), default=0)
    assert found.child.tolist() == [-1] * n


def test_free_edges_make_no_favourites() -> None:
    found = favourites(np.array([1, 1]), np.array([0]), np.array([1]), np.array([0]))
    assert (found.bound, found.x.tolist(), found.child.tolist()) == (2, [1.0], [-1, -1])


def test_a_cycle_is_named() -> None:
    with pytest.raises(BaechiError, match="cycle") as caught:
        favourites(np.array([1, 1]), np.array([0, 1]), np.array([1, 0]), np.array([1, 1]))
    assert caught.value.code == "B207"
