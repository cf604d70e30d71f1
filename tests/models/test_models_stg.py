"""Task graphs made as those of the Standard Task Graph set."""

import pytest

from baechi.errors import BaechiError
from baechi.frontends.stg import read_stg
from baechi.models.graphs import STG_SHAPES, STG_TIMES, stg, stg_text


@pytest.mark.parametrize("shape", STG_SHAPES)
@pytest.mark.parametrize("times", STG_TIMES)
def test_a_graph_of_each_kind(shape: str, times: str) -> None:
    graph = stg(60, 3, shape=shape, times=times)
    assert graph.digest == stg(60, 3, shape=shape, times=times).digest
    assert graph.digest != stg(60, 4, shape=shape, times=times).digest
    tasks = graph.ops[1:-1]
    assert len(tasks) == 60
    mean = sum(round((op.seconds or 0) * 1000) for op in tasks) / 60
    assert all(round((op.seconds or 0) * 1000) >= 1 for op in tasks)
    assert 3.5 < mean < 7.5
    first, last = graph.ops[0], graph.ops[-1]
    assert all(op.inputs for op in tasks)  # every task comes after the first dummy
    assert all(graph.readers[t.name] for op in graph.ops[:-1] for t in op.outputs)  # and before the last
    assert (first.inputs, last.outputs, first.seconds, last.seconds) == ((), (), 0.0, 0.0)


def test_the_average_number_of_predecessors() -> None:
    for shape in ("samepred", "layrpred"):
        counts = [len(op.inputs) for seed in range(30) for op in stg(100, seed, shape=shape).ops[50:101]]
        assert 2.0 < sum(counts) / len(counts) < 4.0  # 1, 3 and 5 alike


def test_transfers_are_read_back() -> None:
    text = stg_text(40, 1, transfer=9)
    graph, _ = read_stg(text, "g")
    seconds = [t.seconds for t in graph.tensor.values()]
    assert max(s for s in seconds if s is not None) == pytest.approx(0.009)


@pytest.mark.parametrize("options", [{"shape": "round"}, {"times": "late"}])
def test_unknown_options(options: dict[str, str]) -> None:
    with pytest.raises(BaechiError, match=r"no (shape|times)") as caught:
        stg(5, 1, **options)  # type: ignore[arg-type]
    assert caught.value.code == "B102"
