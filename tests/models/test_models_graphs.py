import hashlib
import json

import networkx as nx
import pytest

from baechi.errors import BaechiError
from baechi.frontends.workload import read_target
from baechi.models import graphs

# sha256 of what shared/workloads/gen_dag.py KIND 200 1 writes, as canonical JSON
GOLDEN = {
    "branchy": "92e14f836a01a5427f3daf49eb23ee670cb5282ae7075ced8dbf445eaeaa32d2",
    "layered": "24c235eb63eddfa1b9a8d05545e10a1e2938be556ff8af9bbc813896429f6ac0",
    "wide": "0f8c1bf8c3d237d581f36037a8cfd928c2bbc7d5e0b6f8a8b68cb045fd9d93d3",
}
# of Baechi's published runs on the graphs of seed 1: ops, edges, microseconds on one device
PUBLISHED = {
    ("branchy", 1000): (1000, 1206, 319_373),
    ("layered", 1000): (1000, 1935, 306_533),
    ("wide", 1000): (1000, 1900, 302_556),
    ("branchy", 10_000): (9998, 12_002, 3_093_097),
    ("layered", 10_000): (10_000, 19_882, 3_022_787),
    ("wide", 10_000): (10_000, 19_823, 3_007_265),
}


def etf(graph, devices, by_readiness=False):
    """Earliest task first with transfers that do not contend, in plain Python: the makespan.

    Ties go to the earlier op, or, as in Baechi's PyTorch version, to the op that was ready earlier.
    """
    free, end, at = [0.0] * devices, {}, {}
    while len(end) < len(graph):
        choices = []
        for i, op in enumerate(graph.ops):
            parents = {graph.producer[t].name: graph.tensor[t].seconds for t in op.inputs}
            if op.name in end or not parents.keys() <= end.keys():
                continue
            ready = max([(0.0, 0), *((end[p], at[p]) for p in parents)]) if by_readiness else (0.0, 0)
            for d in range(devices):
                arrivals = [end[p] + (seconds if at[p] != d else 0) for p, seconds in parents.items()]
                choices.append((max([free[d], *arrivals]), ready, i, d))
        start, _, i, d = min(choices)
        at[graph.ops[i].name] = d
        free[d] = end[graph.ops[i].name] = start + graph.ops[i].seconds
    return max(end.values())


@pytest.mark.parametrize(
    ("make", "devices", "by_op", "by_readiness"),
    [
        (graphs.paper_figure_1, 2, 8, 8),
        (graphs.figure_2, 2, 14, 14),
        (graphs.figure_21, 2, 22, 22),
        (graphs.figure_21, 3, 20, 20),
        (graphs.hanen_munier, 2, 36, 38),
        (graphs.hanen_munier, 3, 29, 29),
    ],
)
def test_the_drawn_graphs_have_the_originals_makespans(make, devices, by_op, by_readiness):
    assert etf(make(), devices) == by_op
    assert etf(make(), devices, by_readiness=True) == by_readiness


def test_figure_1_is_the_papers():
    graph = graphs.paper_figure_1()
    assert sorted(graph.nx.edges) == [
        ("op1", "op2"), ("op1", "op5"), ("op2", "op3"), ("op3", "op4"), ("op5", "op6"), ("op6", "op4"),
    ]  # fmt: skip
    assert [op.seconds for op in graph.ops] == [1, 3, 3, 1, 3, 1]
    assert [op.persistent_bytes for op in graph.ops] == [1, 2, 2, 1, 1, 1]
    assert {t.seconds for t in graph.tensor.values()} == {1.0}


@pytest.mark.parametrize("kind", graphs.DAG_KINDS)
def test_dag_data_is_the_benchmarks_to_the_bit(kind):
    text = json.dumps(graphs.dag_data(kind, 200, 1), sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == GOLDEN[kind]


@pytest.mark.parametrize(("kind", "n"), PUBLISHED)
def test_dags_are_those_of_the_published_runs(kind, n):
    graph = graphs.dag(kind, n, 1)
    found = len(graph), graph.nx.number_of_edges(), round(sum(op.seconds for op in graph.ops) * 1e6)
    assert found == PUBLISHED[kind, n]
    assert nx.is_directed_acyclic_graph(graph.nx)


@pytest.mark.parametrize("kind", graphs.DAG_KINDS)
@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_small_dags_exist(kind, n):
    assert 1 <= len(graphs.dag(kind, n, 3)) <= n
    assert graphs.dag(kind, n, 3).digest != graphs.dag(kind, n, 4).digest


def data():
    nodes = [
        {"id": 0, "name": "a", "compute_us": 150, "temp": 5, "persistent": 400, "out": 1_000_000},
        {"id": 1, "name": "b", "compute_us": 1, "temp": 0, "persistent": 0, "out": 0},
    ]
    return {"kind": "layered", "seed": 9, "nodes": nodes, "edges": [[0, 1], [0, 1]]}


def test_gen_dag_costs_become_seconds_and_bytes():
    graph = graphs.from_gen_dag(data())
    a, b = graph.ops
    assert (a.seconds, a.temp_bytes, a.persistent_bytes) == (150e-6, 5, 400)
    assert a.outputs[0].nbytes == 1_000_000
    assert a.outputs[0].held == 400
    assert a.outputs[0].seconds == pytest.approx(309e-6)  # 175.4 + 134, rounded
    assert b.outputs[0].seconds == pytest.approx(134e-6)
    assert (a.name, b.name, b.inputs) == ("0", "1", ("0",))
    assert graph.meta == {"kind": "layered", "seed": 9}


@pytest.mark.parametrize(
    ("spoil", "code", "place"),
    [
        (lambda d: d.pop("edges"), "B105", "edges"),
        (lambda d: d.update(nodes={}), "B105", "$.nodes"),
        (lambda d: d["nodes"][1].pop("out"), "B105", "$.nodes[1]"),
        (lambda d: d["nodes"][1].update(id=0), "B105", "two nodes"),
        (lambda d: d["nodes"][1].update(temp="big"), "B105", "$.nodes[1].temp"),
        (lambda d: d["nodes"][0].update(compute_us=float("nan")), "B206", "$.nodes[0].compute_us"),
        (lambda d: d["nodes"][0].update(compute_us=-1), "B206", "seconds"),
        (lambda d: d["nodes"][0].update(out=-1), "B206", "nbytes"),
        (lambda d: d["nodes"][1].update(id="b"), "B105", "$.edges[0][1]"),
        (lambda d: d["edges"].append([0, 2]), "B105", "$.edges[2][1]"),
        (lambda d: d["edges"].append([0]), "B105", "$.edges[2]"),
        (lambda d: d["edges"].append([1, 0]), "B207", "cycle"),
    ],
)
def test_malformed_gen_dag_data_is_refused_where_it_is_wrong(spoil, code, place):
    spoiled = data()
    spoil(spoiled)
    with pytest.raises(BaechiError) as caught:
        graphs.from_gen_dag(spoiled)
    assert caught.value.code == code
    assert place in caught.value.what


def test_a_dag_and_the_file_of_it_are_one_graph(tmp_path):
    path = tmp_path / "layered.json"
    path.write_text(json.dumps(graphs.dag_data("layered", 200, 1)))
    graph, _ = read_target(path)
    assert graph.digest == graphs.dag("layered", 200, 1).digest


def test_an_unknown_kind_of_dag_is_refused():
    with pytest.raises(BaechiError) as caught:
        graphs.dag("deep", 10, 1)
    assert caught.value.code == "B102"


def test_a_chain_is_a_path():
    graph = graphs.chain(5, seconds=2.0, transfer_seconds=None)
    assert nx.is_isomorphic(graph.nx, nx.path_graph(5, create_using=nx.DiGraph))
    assert sum(op.seconds for op in graph.ops) == nx.dag_longest_path_length(graph.nx, default_weight=2) + 2 == 10
    assert {t.seconds for t in graph.tensor.values()} == {None}


@pytest.mark.parametrize(("width", "depth", "blocks"), [(1, 1, 1), (3, 2, 1), (4, 1, 3), (2, 5, 2)])
def test_fork_join_has_its_chains_between_its_forks(width, depth, blocks):
    graph = graphs.fork_join(width, depth, blocks=blocks)
    assert len(graph) == blocks * (width * depth + 1) + 1
    assert nx.dag_longest_path_length(graph.nx) == blocks * (depth + 1)
    ends = [name for name in graph.nx if graph.nx.in_degree(name) == 0 or graph.nx.out_degree(name) == 0]
    assert len(ends) == 2
    assert len(list(nx.all_simple_paths(graph.nx, ends[0], ends[1]))) == width**blocks


@pytest.mark.parametrize("seed", range(30))
def test_random_dags_keep_their_promises(seed):
    graph = graphs.random_dag(seed, 60, groups=seed % 2 == 0, aliases=seed % 3 > 0, declared=seed % 5 > 0)
    assert len(graph) == 60
    assert nx.is_directed_acyclic_graph(graph.nx)
    for op in graph.ops:
        assert abs(op.seconds * 1e6 - round(op.seconds * 1e6)) < 1e-6
        for t in op.outputs:
            assert (t.seconds is None) == (seed % 5 == 0)
            assert t.alias_of is None or (t.alias_of in op.inputs and t.nbytes <= graph.tensor[t.alias_of].nbytes)
            assert t.held <= op.persistent_bytes
    assert any(op.group for op in graph.ops) == (seed % 2 == 0)
    assert any(t.alias_of for t in graph.tensor.values()) == (seed % 3 > 0)


def test_random_dags_hold_every_oddity():
    drawn = [graphs.random_dag(seed, 60) for seed in range(5)]
    ops = [op for graph in drawn for op in graph.ops]
    tensors = [t for op in ops for t in op.outputs]
    unread = [name for graph in drawn for name, readers in graph.readers.items() if not readers]
    oddities = (
        [op for op in ops if op.seconds == 0 and op.kind == "op"],
        [op for op in ops if len(op.outputs) > 1],
        [op for op in ops if not op.outputs],
        [op for op in ops if op.after],
        [op for op in ops if op.temp_bytes],
        [op for op in ops if op.persistent_bytes and op.kind == "op"],
        [t for t in tensors if t.nbytes == 0],
        [t for t in tensors if t.keep],
        [t for t in tensors if t.held],
        [t for t in tensors if t.seconds == 0],
        unread,
    )
    assert all(oddities)


def test_random_dags_are_shuffled_on_demand_alone():
    ordered, shuffled = graphs.random_dag(3, 60), graphs.random_dag(3, 60, shuffled=True)
    assert _is_topological(ordered)
    assert not _is_topological(shuffled)
    assert nx.utils.graphs_equal(nx.DiGraph(ordered.nx.edges), nx.DiGraph(shuffled.nx.edges))


def _is_topological(graph):
    place = {op.name: i for i, op in enumerate(graph.ops)}
    return all(place[a] < place[b] for a, b in graph.nx.edges)


def test_the_share_of_ops_without_cost_is_an_option():
    def computing(zero_cost):
        return [op for op in graphs.random_dag(1, 100, zero_cost=zero_cost).ops if op.kind == "op"]

    assert all(op.seconds > 0 for op in computing(0.0))
    assert all(op.seconds == 0 for op in computing(1.0))


def test_sizes_below_one_are_refused():
    for make in (lambda: graphs.chain(0), lambda: graphs.fork_join(0, 1), lambda: graphs.dag("wide", 0, 1)):
        with pytest.raises(BaechiError) as caught:
            make()
        assert caught.value.code == "B102"
