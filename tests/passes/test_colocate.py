from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.passes import Colocate


def _linear() -> Graph:
    """One linear layer with a view of its weight, its backward and its update; a buffer beside it."""
    return Graph(
        (
            Op("w", "parameter", outputs=(Tensor("w", 4, held=4),), persistent_bytes=4),
            Op("n", "buffer", outputs=(Tensor("n", 4, held=4),), persistent_bytes=4),
            Op("x", "input", outputs=(Tensor("x", 4),)),
            Op("t", "aten.t", ("w",), (Tensor("wt", 4, alias_of="w"),)),
            Op("mm", "aten.mm", ("x", "wt"), (Tensor("y", 4),)),
            Op("add", "aten.add", ("n",), (Tensor("n1", 4),)),
            Op("mm_1", "aten.mm", ("y", "x"), (Tensor("g", 4),), phase="backward", forward="mm"),
            Op("t_1", "aten.t", ("g",), (Tensor("gt", 4, alias_of="g"),), phase="backward", forward="mm"),
            Op("step", "update", ("gt", "w"), phase="update"),
            Op("store", "assign", ("n1", "n"), phase="update"),
        )
    )


def _groups(one: Colocate) -> set[frozenset[str]]:
    return {frozenset(op.name for op in ops) for ops in one(_linear()).groups.values() if len(ops) > 1}


def test_state_stays_with_what_writes_it() -> None:
    assert _groups(Colocate()) == {frozenset({"w", "step"}), frozenset({"n", "store"})}


def test_a_gradient_joins_its_parameter_through_views() -> None:
    assert frozenset({"w", "step", "t_1", "mm_1"}) in _groups(Colocate(gradient=True))


def test_a_gradient_that_somebody_else_reads_does_not_join() -> None:
    graph = _linear()
    graph = graph.with_ops((*graph.ops, Op("norm", "aten.norm", ("g",), (Tensor("z"),), phase="backward")))
    group = Colocate(gradient=True)(graph).op
    assert group["t_1"].group == "w"
    assert group["mm_1"].group is None


def test_views_join_what_they_view() -> None:
    assert _groups(Colocate(aliases=True)) == {
        frozenset({"w", "t", "step"}),
        frozenset({"n", "store"}),
        frozenset({"mm_1", "t_1"}),
    }


def test_backward_ops_join_their_twins() -> None:
    assert frozenset({"mm", "mm_1", "t_1"}) in _groups(Colocate(twins=True))


def test_the_parameter_behind_a_view_is_found() -> None:
    graph = _linear()
    ops = [op if op.name != "step" else Op("step", "update", ("gt", "wt"), phase="update") for op in graph.ops]
    assert Colocate()(graph.with_ops(ops)).op["step"].group == "w"
