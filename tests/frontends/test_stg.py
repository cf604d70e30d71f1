"""The Standard Task Graph format."""

from pathlib import Path

import pytest

from baechi.errors import BaechiError
from baechi.frontends.stg import read_stg
from baechi.frontends.workload import read_target
from baechi.ir.cluster import UNLIMITED_BYTES
from baechi.ir.op import Tensor
from baechi.placers import Heft

PLAIN = """          3
          0          0          0
          1         20          1          0
          2          4          1          0
          3          7          2          1          2
          4          0          1          3
# Standard Task Graph Set Project
#   Tasks             : 3 (+dummy tasks : 2)
"""
WITH_TRANSFERS = """3
0 0 0
1 20 1
  0 0
2 4 1
  0 0
3 7 2   # of both
  1 5
  2 9
4 0 1
  3 0
"""
PROTOTYPE = """     3     2
     1    20     0
     2     4     1     1
     3     0     2     1     2
"""


def test_a_plain_graph(tmp_path: Path) -> None:
    path = tmp_path / "rand0000.stg"
    path.write_text(PLAIN)
    graph, defaults = read_target(path)
    assert graph.name == "rand0000"
    assert [op.name for op in graph.ops] == ["0", "1", "2", "3", "4"]
    assert [op.seconds for op in graph.ops] == [0.0, 0.02, 0.004, 0.007, 0.0]
    assert [op.inputs for op in graph.ops] == [(), ("0",), ("0",), ("1", "2"), ("3",)]
    assert graph.tensor["1"] == Tensor("1", seconds=0.0)
    assert defaults.cluster is not None
    assert [d.cap for d in defaults.cluster.devices] == [UNLIMITED_BYTES] * 4
    assert Heft().place(graph, defaults.cluster).predicted.step_seconds == pytest.approx(0.027)


def test_transfers() -> None:
    graph, cluster = read_stg(WITH_TRANSFERS, "g")
    assert graph.op["3"].inputs == ("1.3", "2.3")
    assert (graph.tensor["1.3"].seconds, graph.tensor["2.3"].seconds) == (0.005, 0.009)
    assert graph.op["1"].inputs == ("0",)
    # on two processors 2 must end by 11 to send for 9: 20 + 7
    assert Heft().place(graph, cluster).predicted.step_seconds == pytest.approx(0.027)


def test_the_prototype_names_the_processors() -> None:
    graph, cluster = read_stg(PROTOTYPE, "proto")
    assert len(cluster) == 2
    assert cluster.contention == "parallel"
    assert [op.name for op in graph.ops] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("text", "code", "what"),
    [
        ("", "B105", "no task graph"),
        ("# nothing", "B105", "no task graph"),
        ("3\n0 0 0\n1 x 0\n", "B105", "line 3: expected a number, found 'x'"),
        ("3\n0 0 0\n1 nan 0\n", "B105", "line 3: expected a number, found 'nan'"),
        ("1\n0 0 0\n1 5\n", "B105", "line 3: the last task is not complete"),
        ("1\n0 0 0\n1 5 2 0\n", "B105", "line 3: task 1 has 2 predecessors, they do not follow"),
        ("1\n0 0 0\n1 5 -1\n", "B105", "line 3: task 1 has -1 predecessors"),
        ("2\n0 0 0\n2 5 1 0\n", "B105", "line 3: expected task 1, found 2"),
        ("9\n0 0 0\n1 5 1 0\n2 0 1 1\n", "B105", "line 1: 9 tasks are announced, 3 follow"),
        ("1 0\n0 0 0\n1 5 1 0\n", "B105", "line 1: expected a number of processors"),
        ("1\n0 0 0\n1 5 1 7\n2 0 1 1\n", "B105", "task 1 comes after 7, which is no task"),
        ("1\n0 0 0\n1 -5 1 0\n", "B206", "seconds is -0.005"),
        ("2\n1 5 1 2\n2 5 1 1\n", "B207", "cycle"),
    ],
)
def test_a_wrong_file(text: str, code: str, what: str) -> None:
    with pytest.raises(BaechiError) as caught:
        read_stg(text, "g")
    assert caught.value.code == code
    assert what in caught.value.what


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BaechiError) as caught:
        read_target(tmp_path / "none.stg")
    assert caught.value.code == "B110"
