"""Task graphs of the Standard Task Graph set.

A file has the number of tasks, perhaps the number of processors, and for each task its number, its
processing time, the number of its predecessors and these; with communication each predecessor is
followed by the time of the transfer. Comments begin with ``#``. The dummy tasks at the start and at
the end take no time and are not counted.

Source: Tobita, Kasahara, "A standard task graph set for fair evaluation of multiprocessor scheduling
algorithms" (Journal of Scheduling 2002), https://www.kasahara.cs.waseda.ac.jp/schedule/format_e.html
"""

import math
from typing import NamedTuple

from baechi.errors import BaechiError
from baechi.ir.cluster import UNLIMITED_BYTES, Cluster, Device
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor

__all__ = ["read_stg"]

_DEVICES = 4
_UNITS_PER_SECOND = 1000


class _Number(NamedTuple):
    """A number of a file, and its line."""

    value: float
    line: int


class _Task(NamedTuple):
    """A task: its processing time, and the time of the transfer from each predecessor."""

    time: float
    before: dict[int, float]


def read_stg(text: str, name: str, where: str = "") -> tuple[Graph, Cluster]:
    """Read a task graph; a unit of time is a millisecond.

    Args:
        text: the file's content.
        name: what to call the graph.
        where: what errors call the file; `name` when not given.

    Returns:
        The graph, and the processors that the file names, or four, with memory without limit and
        transfers that do not contend.

    Raises:
        BaechiError: B105 when a number is missing or wrong, B2xx as `Graph`.

    Example:
        >>> graph, cluster = read_stg("2  0 0 0  1 5 1 0  2 7 1 1  3 0 1 2", "two in a row")
        >>> [op.seconds for op in graph.ops], graph.op["2"].inputs, len(cluster)
        ([0.0, 0.005, 0.007, 0.0], ('1',), 4)
    """
    where = where or name
    head, body = _numbers(text, where)
    tasks = _tasks(body, where, communicates=_communicates(body))
    if not tasks or head[0].value not in range(len(tasks) - 2, len(tasks) + 1):
        raise _wrong(where, head[0], f"{head[0].value:g} tasks are announced, {len(tasks)} follow")
    processors = head[1] if len(head) > 1 else _Number(_DEVICES, 0)
    if processors.value < 1 or processors.value % 1:
        raise _wrong(where, processors, "expected a number of processors")
    devices = tuple(Device(f"proc:{k}", UNLIMITED_BYTES) for k in range(int(processors.value)))
    return _graph(tasks, name), Cluster(devices, contention="parallel")


def _numbers(text: str, where: str) -> tuple[list[_Number], list[_Number]]:
    """The numbers of the first line, at most two, and all others; a file on one line has one in its head."""
    lines: list[list[_Number]] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            lines.append([_number(word, number, where) for word in words])
    if not lines:
        raise BaechiError("B105", f"{where}: no task graph", help="the first number is the number of tasks")
    count = len(lines[0]) if len(lines[0]) < 3 else 1
    return lines[0][:count], [*lines[0][count:], *(number for line in lines[1:] for number in line)]


def _number(word: str, line: int, where: str) -> _Number:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BaechiError("B105", f"{where}: line {line}: expected a number, found '{word[:20]}'")
    return _Number(value, line)


def _communicates(body: list[_Number]) -> bool:
    """Whether the numbers of predecessors only add up when each is followed by a transfer's time."""
    return not _adds_up(body, 1) and _adds_up(body, 2)


def _adds_up(body: list[_Number], width: int) -> bool:
    at, task = 0, body[0].value if body else 0
    while at + 2 < len(body) and body[at].value == task:
        at += 3 + width * max(0, int(body[at + 2].value))
        task += 1
    return at == len(body)


def _tasks(body: list[_Number], where: str, communicates: bool) -> dict[int, _Task]:
    width = 2 if communicates else 1
    tasks: dict[int, _Task] = {}
    at = 0
    while at < len(body):
        if at + 2 >= len(body):
            raise _wrong(where, body[-1], "the last task is not complete")
        number, time, count = body[at : at + 3]
        before = body[at + 3 : at + 3 + width * max(0, int(count.value))]
        if tasks and number.value != next(reversed(tasks)) + 1:
            raise _wrong(where, number, f"expected task {next(reversed(tasks)) + 1}, found {number.value:g}")
        if count.value < 0 or count.value % 1 or len(before) < width * count.value:
            raise _wrong(where, count, f"task {number.value:g} has {count.value:g} predecessors, they do not follow")
        transfers = before[1::2] if communicates else [_Number(0.0, 0)] * len(before)
        tasks[int(number.value)] = _Task(time.value, _before(before[::width], transfers))
        at += 3 + len(before)
    for name, task in tasks.items():
        for other in task.before:
            if other not in tasks:
                raise BaechiError("B105", f"{where}: task {name} comes after {other}, which is no task")
    return tasks


def _before(predecessors: list[_Number], transfers: list[_Number]) -> dict[int, float]:
    """Transfer times by predecessor; of two transfers from one the longer counts."""
    before: dict[int, float] = {}
    for other, transfer in zip(predecessors, transfers, strict=True):
        before[int(other.value)] = max(transfer.value, before.get(int(other.value), transfer.value))
    return before


def _graph(tasks: dict[int, _Task], name: str) -> Graph:
    """What a task sends to one other is a tensor of its own; what takes no time is one for all."""
    outputs: dict[int, dict[str, Tensor]] = {number: {} for number in tasks}
    inputs: dict[int, list[str]] = {number: [] for number in tasks}
    for number, task in tasks.items():
        for other, transfer in task.before.items():
            tensor = f"{other}.{number}" if transfer else f"{other}"
            outputs[other].setdefault(tensor, Tensor(tensor, seconds=transfer / _UNITS_PER_SECOND))
            inputs[number].append(tensor)
    ops = (
        Op(str(n), "task", tuple(inputs[n]), tuple(outputs[n].values()), seconds=task.time / _UNITS_PER_SECOND)
        for n, task in tasks.items()
    )
    return Graph(tuple(ops), name)


def _wrong(where: str, number: _Number, what: str) -> BaechiError:
    return BaechiError("B105", f"{where}: line {number.line}: {what}")
