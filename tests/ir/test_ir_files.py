"""A plan or graph file that is not whole or not right is one error that says where."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baechi.errors import BaechiError
from baechi.ir.cluster import Cluster, Device
from baechi.ir.graph import Graph
from baechi.ir.json import (
    graph_from_dict,
    graph_to_dict,
    plan_from_dict,
    plan_to_dict,
    read_graph,
    read_plan,
    write_plan,
)
from baechi.ir.op import Op, Tensor
from baechi.ir.plan import Bounds, Placed, Plan, Prediction

PLAN = plan_to_dict(
    Plan(
        "d1",
        {"name": "models:mlp"},
        Cluster((Device("cuda:0", 4), Device("cuda:1", 4))),
        Placed("m-etf"),
        {"a": "cuda:0", "b": "cuda:1", "c": "cuda:1"},
        {"cuda:0": ("a",), "cuda:1": ("b", "c")},
        (("t", "cuda:0", "cuda:1"),),
        Prediction(1.0, {"cuda:0": 4}),
        Bounds({"work": 1.0}),
    )
)
GRAPH = graph_to_dict(Graph((Op("a", "input", outputs=(Tensor("x", 8),)), Op("b", "relu", inputs=("x",)))))


def changed(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with another value at a dotted path; `...` removes what is there."""
    copy = json.loads(json.dumps(data))
    *parents, last = path.split("/")
    at = copy
    for key in parents:
        at = at[int(key) if isinstance(at, list) else key]
    if value is ...:
        del at[last]
    else:
        at[int(last) if isinstance(at, list) else last] = value
    return copy


@pytest.mark.parametrize(
    ("path", "value", "code", "what"),
    [
        ("schema", "baechi/plan/2", "B403", '$: the schema is "baechi/plan/2"'),
        ("schema", ..., "B403", "$: the schema is null"),
        ("order", ..., "B405", "$: 'order' is missing"),
        ("graph/digest", 7, "B405", "$.graph.digest: expected a string, found 7"),
        ("order/cuda:1/1", 3, "B405", "$.order.cuda:1[1]: expected a string, found 3"),
        ("order/cuda:1/1", "b", "B405", "$.order.cuda:1[1]: op 'b' is ordered twice"),
        ("order/cuda:1/1", "z", "B405", "$.order.cuda:1[1]: op 'z' is on no device"),
        ("order/cuda:1/1", "a", "B405", "$.order.cuda:1[1]: op 'a' is ordered twice"),
        ("order/cuda:0", [], "B405", "$.device.a: op 'a' is in no order"),
        ("order/cuda:2", [], "B405", "$.order.cuda:2: 'cuda:2' is no device"),
        ("device/a", "cuda:7", "B405", "$.device.a: 'cuda:7' is no device"),
        ("device/a", "cuda:1", "B405", "$.order.cuda:0[0]: op 'a' is on cuda:1, not on cuda:0"),
        ("transfers/0", ["t", "cuda:0"], "B405", "$.transfers[0]: expected 3 elements"),
        ("transfers/0/2", "cuda:9", "B405", "$.transfers[0][2]: 'cuda:9' is no device"),
        ("predicted/peak_bytes/cuda:0", 1.5, "B405", "$.predicted.peak_bytes.cuda:0: expected a whole number"),
        ("predicted/step_seconds", float("nan"), "B206", "$.predicted.step_seconds: nan is no number"),
        ("bounds/work", "1", "B405", "$.bounds.work: expected a number"),
        ("cluster/device/0/memory_bytes", ..., "B405", "$.cluster: device 'cuda:0' has no memory_bytes"),
        ("cluster/device/0/memory_bytes", "4", "B405", "$.cluster.device[0].memory_bytes: expected a whole number"),
        ("cluster/device/0/memory_bytes", 0, "B405", "$.cluster: device 'cuda:0' has 0 bytes of memory"),
        ("cluster/device/1/name", "cuda:0", "B405", "$.cluster: two devices"),
        ("cluster/contention", "fast", "B405", "$.cluster.contention: expected one of"),
        ("seed", None, "B405", "$.seed: expected a whole number, found null"),
    ],
)
def test_a_wrong_plan(path: str, value: Any, code: str, what: str) -> None:
    with pytest.raises(BaechiError) as caught:
        plan_from_dict(changed(PLAN, path, value), name="plan.json")
    assert caught.value.code == code
    assert caught.value.what.startswith(f"plan.json: {what}")


@pytest.mark.parametrize(
    ("path", "value", "code", "what"),
    [
        ("schema", 1, "B210", "$: the schema is 1"),
        ("ops/0/name", ..., "B211", "$.ops[0]: 'name' is missing"),
        ("ops/0/flop", 1, "B211", "$.ops[0]: unknown entry 'flop'"),
        ("ops/0/flops", "many", "B211", "$.ops[0].flops: expected a number"),
        ("ops/0/outputs/0/nbytes", 0.5, "B211", "$.ops[0].outputs[0].nbytes: expected a whole number"),
        ("ops/1/phase", "sideways", "B211", "$.ops[1].phase: expected one of forward, backward, update"),
        ("ops/1/seconds", float("nan"), "B206", "$.ops[1].seconds: nan is no number"),
    ],
)
def test_a_wrong_graph(path: str, value: Any, code: str, what: str) -> None:
    with pytest.raises(BaechiError) as caught:
        graph_from_dict(changed(GRAPH, path, value), name="g.json")
    assert caught.value.code == code
    assert caught.value.what.startswith(f"g.json: {what}")


def test_a_cyclic_graph() -> None:
    with pytest.raises(BaechiError, match="cycle") as caught:
        graph_from_dict(changed(GRAPH, "ops/0/after", ["b"]))
    assert caught.value.code == "B207"


def test_a_truncated_plan_is_an_error_at_every_length(tmp_path: Path) -> None:
    write_plan(plan_from_dict(PLAN), tmp_path / "plan.json")
    text = (tmp_path / "plan.json").read_text()
    for length in range(0, len(text) - 2, 7):
        (tmp_path / "plan.json").write_text(text[:length])
        with pytest.raises(BaechiError) as caught:
            read_plan(tmp_path / "plan.json")
        assert caught.value.code == "B402"


@pytest.mark.parametrize(("read", "missing", "malformed"), [(read_plan, "B401", "B402"), (read_graph, "B208", "B209")])
def test_a_file_that_is_none(tmp_path: Path, read: Callable[[Path], object], missing: str, malformed: str) -> None:
    (tmp_path / "f.json").write_text("not json")
    for path, code in ((tmp_path / "none.json", missing), (tmp_path / "f.json", malformed)):
        with pytest.raises(BaechiError) as caught:
            read(path)
        assert caught.value.code == code


junk = st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.sampled_from(["", "a", "cuda:0"])
trees = st.recursive(junk, lambda t: st.lists(t, max_size=3) | st.dictionaries(st.sampled_from("ab"), t, max_size=2))


def places(value: Any, prefix: str = "") -> list[str]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for key, child in children for p in (f"{prefix}{key}", *places(child, f"{prefix}{key}/"))]


@settings(max_examples=150)
@given(st.data())
def test_any_change_is_a_plan_or_a_user_error(data: st.DataObject) -> None:
    for whole, read in ((PLAN, plan_from_dict), (GRAPH, graph_from_dict)):
        path = data.draw(st.sampled_from(places(whole)))
        try:
            read(changed(whole, path, data.draw(trees)))
        except BaechiError as error:
            assert error.code.startswith(("B2", "B4"))  # noqa: PT017 - some changes do no harm
