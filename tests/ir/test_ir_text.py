"""Text and JSON forms of plans, timelines and graphs lose nothing."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baechi.errors import BaechiError
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.json import (
    graph_from_dict,
    graph_to_dict,
    plan_from_dict,
    plan_to_dict,
    read_graph,
    read_plan,
    timeline_from_dict,
    timeline_to_dict,
    write_graph,
    write_plan,
)
from baechi.ir.op import Op, Tensor
from baechi.ir.plan import Bounds, Placed, Plan, Prediction
from baechi.ir.text import format_cluster, format_plan, format_timeline, parse_plan, parse_timeline
from baechi.ir.timeline import OpSpan, Timeline, TransferSpan

GOLDEN = Path(__file__).parents[1] / "golden" / "plan.txt"

names = st.text(max_size=8) | st.sampled_from(["->", "order", "#", '"', "a b", "op.1", "\n", "[x]", "{", "cuda:0"])
seconds = st.floats(0, 1e6) | st.integers(0, 10)
sizes = st.integers(0, 2**60)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | names
plain = st.dictionaries(names, scalars | st.lists(scalars, max_size=3), max_size=3)
links = st.builds(Link, seconds, st.floats(1, 1e12) | st.just(float("inf")))


def device(name: str) -> st.SearchStrategy[Device]:
    return st.builds(
        Device,
        st.just(name),
        st.integers(1, 2**56),
        type=names,
        backend=st.sampled_from(["cpu", "cuda"]),
        flops_per_second=st.dictionaries(names, st.floats(1, 1e15), max_size=2),
        bytes_per_second=st.floats(1, 1e13) | st.just(float("inf")),
        launch_seconds=seconds,
        efficiency=st.floats(0.1, 1),
        speed=st.floats(0.1, 10),
        host=names,
    )


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    known = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    pairs = st.tuples(st.sampled_from(known), st.sampled_from(known))
    return Cluster(
        tuple(draw(device(n)) for n in known),
        draw(links),
        draw(st.dictionaries(pairs, links, max_size=3)),
        draw(st.sampled_from(["sequential", "duplex", "parallel"])),
        draw(st.dictionaries(names, st.integers(1, 64), max_size=2)),
    )


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    cluster = draw(clusters())
    devices = st.sampled_from([d.name for d in cluster.devices])
    placed = draw(st.dictionaries(names, devices, max_size=6))
    order = {d: tuple(op for op in placed if placed[op] == d) for d in cluster.device}
    return Plan(
        draw(names),
        draw(plain),
        cluster,
        Placed(draw(names), draw(plain), draw(seconds)),
        placed,
        order,
        tuple(draw(st.lists(st.tuples(names, devices, devices), max_size=3))),
        Prediction(draw(seconds), draw(st.dictionaries(devices, sizes, max_size=3))),
        Bounds(draw(st.dictionaries(names, seconds, max_size=3))),
        draw(st.integers(0, 2**32)),
        draw(names),
    )


timelines = st.builds(
    Timeline,
    st.lists(st.builds(OpSpan, names, names, seconds, seconds), max_size=4).map(tuple),
    st.lists(st.builds(TransferSpan, names, names, names, seconds, seconds, sizes), max_size=4).map(tuple),
    st.dictionaries(names, st.lists(st.tuples(seconds, sizes), max_size=4).map(tuple), max_size=3),
)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    ops: list[Op] = []
    for name in draw(st.lists(names, max_size=4, unique=True)):
        made = [t.name for op in ops for t in op.outputs]
        optional = st.none() | names
        output = st.builds(
            Tensor,
            st.just(f"{len(ops)}{name}"),
            sizes,
            st.lists(st.integers(0, 99), max_size=3).map(tuple),
            names,
            st.none() | st.sampled_from(made) if made else st.none(),
            sizes,
            st.none() | seconds,
            st.booleans(),
        )
        op = st.builds(
            Op,
            st.just(name),
            names,
            st.lists(st.sampled_from(made), unique=True, max_size=3).map(tuple) if made else st.just(()),
            st.lists(output, max_size=1).map(tuple),
            st.lists(st.sampled_from([o.name for o in ops]), max_size=2).map(tuple) if ops else st.just(()),
            st.sampled_from(["forward", "backward", "update"]),
            seconds,
            sizes,
            sizes,
            sizes,
            st.none() | seconds,
            names,
            optional,
            names,
            names,
            optional,
            names,
            st.none() | st.integers(0, 9),
        )
        ops.append(draw(op))
    return Graph(tuple(ops), draw(names), draw(plain))


@settings(max_examples=60)
@given(plans())
def test_a_plan_survives_text_and_json(plan: Plan) -> None:
    assert parse_plan(format_plan(plan)) == plan
    assert plan_from_dict(json.loads(json.dumps(plan_to_dict(plan)))) == plan


@settings(max_examples=60)
@given(timelines)
def test_a_timeline_survives_text_and_json(timeline: Timeline) -> None:
    for back in (
        parse_timeline(format_timeline(timeline)),
        timeline_from_dict(json.loads(json.dumps(timeline_to_dict(timeline)))),
    ):
        assert (back.ops, back.transfers, back.memory) == (timeline.ops, timeline.transfers, timeline.memory)


@settings(max_examples=60)
@given(graphs())
def test_a_graph_survives_json(graph: Graph) -> None:
    back = graph_from_dict(json.loads(json.dumps(graph_to_dict(graph))))
    assert (back.ops, back.name, back.meta, back.digest) == (graph.ops, graph.name, graph.meta, graph.digest)


def example_plan() -> Plan:
    """Fig. 1 of the paper, two devices of four units: step 9."""
    order = {"cuda:0": ("op1", "op2", "op6"), "cuda:1": ("op5", "op3", "op4")}
    return Plan(
        graph="0123456789abcdef",
        target={"name": "models:fig1", "batch": 32},
        cluster=Cluster((Device("cuda:0", 4), Device("cuda:1", 4)), Link(1.0), contention="parallel"),
        placer=Placed("m-sct", {"threshold": 0.1}, 0.002),
        device={op: device for device, ops in order.items() for op in ops},
        order=order,
        transfers=(("t1", "cuda:0", "cuda:1"), ("t2", "cuda:0", "cuda:1"), ("t5", "cuda:1", "cuda:0")),
        predicted=Prediction(9.0, {"cuda:0": 4, "cuda:1": 4}),
        bounds=Bounds({"critical path": 8.0, "work": 6.0}),
        seed=7,
        version="0.1.0",
    )


def test_the_text_of_a_plan_is_the_golden_one() -> None:
    command, golden = GOLDEN.read_text().split("\n", 1)
    assert command.startswith("# python ")
    assert format_plan(example_plan()) == golden


def test_the_golden_text_reads_back_with_its_first_line() -> None:
    assert parse_plan(GOLDEN.read_text()) == example_plan()


def test_the_fields_that_outside_checks_read() -> None:
    data = plan_to_dict(example_plan())
    assert data["schema"] == "baechi/plan/1"
    assert data["graph"] == {"digest": "0123456789abcdef", "target": {"name": "models:fig1", "batch": 32}}
    assert data["placer"] == {"name": "m-sct", "options": {"threshold": 0.1}, "seconds": 0.002}
    assert data["device"]["op6"] == "cuda:0"
    assert data["order"]["cuda:1"] == ["op5", "op3", "op4"]
    assert data["transfers"][2] == ["t5", "cuda:1", "cuda:0"]
    assert data["predicted"] == {"step_seconds": 9.0, "peak_bytes": {"cuda:0": 4, "cuda:1": 4}, "load_seconds": {}}
    assert data["bounds"]["step_seconds"] == 8.0
    assert (data["seed"], data["version"]) == (7, "0.1.0")
    assert [d["memory_bytes"] for d in data["cluster"]["device"]] == [4, 4]


def test_files_round_trip(tmp_path: Path) -> None:
    write_plan(example_plan(), tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == example_plan()
    graph = Graph((Op("a", "input", outputs=(Tensor("x", 8),)), Op("b", "relu", inputs=("x",))))
    write_graph(graph, tmp_path / "graph.json")
    assert read_graph(tmp_path / "graph.json").digest == graph.digest
    assert len(list(tmp_path.iterdir())) == 2


def test_defaults_are_left_out() -> None:
    graph = Graph((Op("a", "input", outputs=(Tensor("x", 8),)),))
    assert graph_to_dict(graph)["ops"] == [{"name": "a", "kind": "input", "outputs": [{"name": "x", "nbytes": 8}]}]


@pytest.mark.parametrize(
    ("line", "broken"),
    [("seed 7", "seed seven"), ("  op2", "  op2 op3"), ("schema", "scheme"), ("order cuda:1", "order cuda:1 cuda:2")],
)
def test_a_broken_line_is_named(line: str, broken: str) -> None:
    with pytest.raises(BaechiError) as caught:
        parse_plan(format_plan(example_plan()).replace(line, broken, 1), name="p.txt")
    assert caught.value.code in ("B403", "B405")
    assert "p.txt" in caught.value.what


PLACES = [
    "",
    " ",
    "  a",
    "  t cuda:0 -> cuda:1",
    "order",
    "order cuda:0",
    "device {}",
    "link 3",
    "memory cuda:0",
    "op 0 1 a",
]


@settings(max_examples=100)
@given(st.lists(st.sampled_from(PLACES) | names, max_size=3), st.integers(0, 40), st.integers(0, 5))
def test_any_text_is_a_plan_or_a_user_error(lines: list[str], at: int, dropped: int) -> None:
    for text, parse in (
        (format_plan(example_plan()), parse_plan),
        (format_timeline(example_timeline()), parse_timeline),
    ):
        whole = text.split("\n")
        try:
            parse("\n".join([*whole[:at], *lines, *whole[at + dropped :]]))
        except BaechiError as error:
            assert error.code.startswith(("B2", "B4"))  # noqa: PT017 - some changes do no harm


def example_timeline() -> Timeline:
    return Timeline(
        (OpSpan("conv 1", "cpu:0", 0.0, 0.25), OpSpan("relu", "cpu:1", 0.5, 1.5)),
        (TransferSpan("x", "cpu:0", "cpu:1", 0.25, 0.5, 4096),),
        {"cpu:0": ((0.0, 1024), (0.25, 5120)), "cpu:1": ((0.0, 0),)},
    )


def test_a_timeline_reads_well() -> None:
    assert format_timeline(example_timeline()).splitlines() == [
        'schema "baechi/timeline/1"',
        "# 1.50 s",
        'op 0.0 0.25 cpu:0 "conv 1"',
        "op 0.5 1.5 cpu:1 relu",
        "transfer 0.25 0.5 cpu:0 -> cpu:1 x 4096",
        "",
        "memory cpu:0  # 5.00 KiB",
        "  0.0 1024",
        "  0.25 5120",
        "",
        "memory cpu:1  # 0 B",
        "  0.0 0",
    ]


def test_a_broken_timeline_line_is_named() -> None:
    with pytest.raises(BaechiError, match="line 2: cannot read 'ops 0 1 a b'"):
        parse_timeline('schema "baechi/timeline/1"\nops 0 1 a b\n')


def test_a_cluster_in_one_line() -> None:
    mixed = Cluster((Device("a", 2**30), Device("b", memory_fraction=0.3), Device("c", type="t4")))
    assert (
        format_cluster(mixed) == "1 x unit of 1.00 GiB + 1 x unit of 0.3 of the peak + 1 x t4 of unknown memory, duplex"
    )


if __name__ == "__main__":
    print("# python tests/ir/test_ir_text.py > tests/golden/plan.txt")
    print(format_plan(example_plan()), end="")
