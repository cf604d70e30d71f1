"""Repeated blocks are found by what they are, and nothing is found where nothing is repeated."""

from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.models.graphs import dag
from baechi.passes.repeats import repeats


def layers(count: int, odd: int = -1) -> Graph:
    """A stack of layers: weight, product, activation, their gradients, an update; one layer may differ."""
    forward, backward = [Op("x", "input", outputs=(Tensor("x", 8),))], []
    for k in range(count):
        source = f"relu{k - 1}" if k else "x"
        kind = "gelu" if k == odd else "relu"
        forward += [
            Op(f"w{k}", "parameter", outputs=(Tensor(f"w{k}", 8, held=8),), persistent_bytes=8, group=f"g{k}"),
            Op(f"mm{k}", "mm", (source, f"w{k}"), (Tensor(f"mm{k}", 8),), module=f"net.layers.{k}.proj"),
            Op(f"relu{k}", kind, (f"mm{k}",), (Tensor(f"relu{k}", 8),), module=f"net.layers.{k}.act"),
        ]
        backward += [
            Op(f"d{k}", "mm", (f"mm{k}",), (Tensor(f"d{k}", 8),), phase="backward", forward=f"mm{k}"),
            Op(f"u{k}", "update", (f"w{k}", f"d{k}"), phase="update", group=f"g{k}"),
        ]
    return Graph((*forward, *reversed(backward)))


def test_every_op_of_a_stack_is_in_its_block() -> None:
    graph = layers(5)
    found = repeats(graph)
    assert found is not None
    assert found.kind.tolist() == [0] * 5
    for op, block in zip(graph.ops, found.block.tolist(), strict=True):
        assert block == (-1 if op.name == "x" else int(op.name[-1]))


def test_equal_places_have_equal_numbers() -> None:
    graph = layers(4)
    found = repeats(graph)
    assert found is not None
    index = {op.name: i for i, op in enumerate(graph.ops)}
    assert len({int(found.piece[index[f"mm{k}"]]) for k in range(4)}) == 1
    assert found.piece[index["mm0"]] != found.piece[index["relu0"]]
    assert found.part[index["w2"]] == found.part[index["mm2"]] == found.part[index["u2"]]


def test_a_block_that_differs_is_no_repetition() -> None:
    graph = layers(4, odd=2)
    found = repeats(graph)
    assert found is not None
    assert len(found.kind) == 3
    index = {op.name: i for i, op in enumerate(graph.ops)}
    assert all(found.block[index[name]] == -1 for name in ("w2", "mm2", "relu2", "d2", "u2"))


def test_nothing_repeats_without_modules_or_with_one_layer() -> None:
    assert repeats(dag("layered", 100, 1)) is None
    assert repeats(layers(1)) is None


def test_a_group_over_two_blocks_is_in_neither() -> None:
    graph = layers(3)
    tied = graph.with_ops(
        Op(**{f: getattr(op, f) for f in Op.__slots__} | {"group": "tied"}) if op.name in ("mm0", "mm1") else op
        for op in graph.ops
    )
    found = repeats(tied)
    assert found is not None
    index = {op.name: i for i, op in enumerate(graph.ops)}
    assert found.block[index["mm0"]] == found.block[index["mm1"]] == -1
    assert found.block[index["mm2"]] == 2
