"""The actions of a plan: nothing starts before what it needs, nothing waits twice, bad plans are refused."""

import random
from dataclasses import replace

import networkx as nx
import pytest

from baechi.backends.plans import plan_in_program_order
from baechi.backends.pytorch.rewrite import Schedule, schedule
from baechi.errors import BaechiError
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.ir.plan import Plan


def random_graph(seed: int, size: int = 30) -> Graph:
    choose = random.Random(seed)
    ops = [Op("w", "parameter", outputs=(Tensor("w", 8),)), Op("x", "input", outputs=(Tensor("x", 8),))]
    for i in range(size):
        inputs = tuple(o.outputs[0].name for o in choose.sample(ops, min(len(ops), choose.randint(1, 3))))
        after = (choose.choice(ops[2:]).name,) if i > 3 and choose.random() < 0.3 else ()
        ops.append(Op(f"o{i}", "aten.add", inputs, (Tensor(f"o{i}", choose.choice((4, 10**6))),), after))
    return Graph((*ops, Op("u", "update", (ops[-1].name, "w"))))


def random_plan(graph: Graph, devices: int, seed: int) -> Plan:
    choose = random.Random(seed)
    return plan_in_program_order(graph, {op.name: f"d{choose.randrange(devices)}" for op in graph.ops})


def happens_before(found: Schedule) -> "nx.DiGraph[int]":
    """What the order of each agent and the waits guarantee."""
    graph: nx.DiGraph[int] = nx.DiGraph()
    last: dict[object, int] = {}
    for i, action in enumerate(found.actions):
        graph.add_node(i)
        graph.add_edges_from((j, i) for j in action.waits)
        if action.agent in last:
            graph.add_edge(last[action.agent], i)
        last[action.agent] = i
    return graph


@pytest.mark.parametrize("inline", [0, 100])
@pytest.mark.parametrize("seed", range(12))
def test_waits_guarantee_every_need_and_no_more(seed: int, inline: int) -> None:
    graph = random_graph(seed)
    found = schedule(graph, plan := random_plan(graph, 4, seed), inline_bytes=inline)
    order = happens_before(found)
    at = {a.op or a.transfer: i for i, a in enumerate(found.actions)}
    sources = {"w", "x"}
    for op in graph.ops:
        for name in (*op.after, *(r.name for r in graph.readers["w"] if op.name == "u" and r is not op)):
            assert nx.has_path(order, at[name], at[op.name])
        for tensor in op.inputs:
            maker, here = graph.producer[tensor].name, plan.device[op.name]
            key = (tensor, plan.device[maker], here)
            if plan.device[maker] != here:
                assert nx.has_path(order, at[key], at[op.name])
                assert maker in sources or nx.has_path(order, at[maker], at[key])
            else:
                assert maker in sources or nx.has_path(order, at[maker], at[op.name])
    reduced = nx.transitive_reduction(order)
    for i, action in enumerate(found.actions):
        assert all(reduced.has_edge(j, i) for j in action.waits)


def test_a_small_tensor_is_copied_by_its_maker() -> None:
    graph = random_graph(3)
    for action in schedule(graph, random_plan(graph, 3, 3), inline_bytes=100).actions:
        if action.transfer is not None:
            tensor, source, destination = action.transfer
            inline = graph.tensor[tensor].nbytes <= 100 and tensor not in ("w", "x")
            assert (action.agent.work, action.agent.device) == (
                ("compute", source) if inline else ("lane", destination)
            )


def test_a_plan_for_another_graph_is_refused() -> None:
    with pytest.raises(BaechiError, match="another graph") as error:
        schedule(random_graph(1), random_plan(random_graph(2), 2, 0))
    assert error.value.code == "B603"


def test_a_read_without_transfer_is_refused() -> None:
    graph = random_graph(0)
    plan = random_plan(graph, 3, 0)
    for key in plan.transfers:
        with pytest.raises(BaechiError, match="no transfer") as error:
            schedule(graph, replace(plan, transfers=tuple(t for t in plan.transfers if t != key)))
        assert error.value.code == "B604"


def test_an_op_that_is_not_ordered_is_refused() -> None:
    graph = random_graph(0)
    plan = random_plan(graph, 1, 0)
    with pytest.raises(BaechiError, match="does not order op 'u'"):
        schedule(graph, replace(plan, order={"d0": plan.order["d0"][:-1]}))


def test_orders_that_contradict_each_other_are_refused() -> None:
    """Two devices that each first want the other's second op would wait for ever."""
    ops = (
        Op("x", "input", outputs=(Tensor("x", 8),)),
        Op("a1", "aten.relu", ("x",), (Tensor("a1", 8),)),
        Op("b1", "aten.relu", ("x",), (Tensor("b1", 8),)),
        Op("a2", "aten.relu", ("b1",)),
        Op("b2", "aten.relu", ("a1",)),
    )
    graph = Graph(ops)
    plan = plan_in_program_order(graph, {"x": "a", "a1": "a", "a2": "a", "b1": "b", "b2": "b"})
    assert len(schedule(graph, plan).actions) == 7
    with pytest.raises(BaechiError, match="contradict") as error:
        schedule(graph, replace(plan, order={"a": ("x", "a2", "a1"), "b": ("b2", "b1")}))
    assert error.value.code == "B605"
