"""A binary heap in a plain array, for compiled loops: rows of (key, tie, value); row 0 holds the count."""

from baechi.cost.jit import leaf
from baechi.cost.problem import Ints

__all__ = ["heap_pop", "heap_push"]


@leaf
def heap_push(heap: Ints, key: int, tie: int, value: int) -> None:
    """Add an entry to a heap that has room for it."""
    count = heap[0, 0] + 1
    heap[0, 0] = count
    i = count
    while i > 1:
        up = i >> 1
        if heap[up, 0] < key or (heap[up, 0] == key and heap[up, 1] <= tie):
            break
        heap[i, 0], heap[i, 1], heap[i, 2] = heap[up, 0], heap[up, 1], heap[up, 2]
        i = up
    heap[i, 0], heap[i, 1], heap[i, 2] = key, tie, value


@leaf
def heap_pop(heap: Ints) -> int:
    """Remove the entry with the smallest (key, tie), which row 1 holds, and return its value."""
    value = heap[1, 2]
    count = heap[0, 0]
    key, tie, last = heap[count, 0], heap[count, 1], heap[count, 2]
    count -= 1
    heap[0, 0] = count
    i = 1
    while True:
        down = 2 * i
        if down > count:
            break
        if down < count and (
            heap[down + 1, 0] < heap[down, 0]
            or (heap[down + 1, 0] == heap[down, 0] and heap[down + 1, 1] < heap[down, 1])
        ):
            down += 1
        if key < heap[down, 0] or (key == heap[down, 0] and tie <= heap[down, 1]):
            break
        heap[i, 0], heap[i, 1], heap[i, 2] = heap[down, 0], heap[down, 1], heap[down, 2]
        i = down
    heap[i, 0], heap[i, 1], heap[i, 2] = key, tie, last
    return int(value)
