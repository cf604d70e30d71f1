"""A binary heap in a plain array, for compiled loops: rows of (key, tie); row 0 holds the count."""

from baechi.cost.jit import leaf
from baechi.cost.problem import Ints

__all__ = ["heap_pop", "heap_push"]


@leaf
def heap_push(heap: Ints, key: int, tie: int) -> None:
    """Add an entry to a heap that has room for it."""
    count = heap[0, 0] + 1
    heap[0, 0] = count
    i = count
    while i > 1:
        up = i >> 1
        if heap[up, 0] < key or (heap[up, 0] == key and heap[up, 1] <= tie):
            break
        heap[i, 0], heap[i, 1] = heap[up, 0], heap[up, 1]
        i = up
    heap[i, 0], heap[i, 1] = key, tie


@leaf
def heap_pop(heap: Ints) -> int:
    """Remove the smallest entry, which row 1 holds, and return its tie."""
    first = heap[1, 1]
    count = heap[0, 0]
    key, tie = heap[count, 0], heap[count, 1]
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
        heap[i, 0], heap[i, 1] = heap[down, 0], heap[down, 1]
        i = down
    heap[i, 0], heap[i, 1] = key, tie
    return int(first)
