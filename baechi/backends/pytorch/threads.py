"""Run a schedule on virtual CPU devices: one thread for each device and for each copy lane."""

import contextlib
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import torch

from baechi.backends.pytorch.source import Code, Job, write_agent
from baechi.errors import BaechiError

__all__ = ["Crew", "Failed", "Threaded"]

Values = Mapping[str, dict[str, Any]]


class _Halt(BaseException):
    """Leaves a function whose step has failed elsewhere."""


class _Board:
    """What the threads of a crew share; it does not know the crew, so a forgotten crew can end."""

    def __init__(self, size: int) -> None:
        self.go = [_closed_lock() for _ in range(size)]
        self.done = [_closed_lock() for _ in range(size)]
        self.tasks: list[Callable[[], None] | None] = [None] * size
        self.failures: list[tuple[int, BaseException]] = []
        self.abort: Callable[[], None] = _nothing
        self.closing = False


class Crew:
    """Threads that carry out one task each at a time, and end with the crew.

    Args:
        names: of the threads.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._board = _Board(len(names))
        self.threads = tuple(
            threading.Thread(target=_work, args=(self._board, i), name=f"baechi {name}", daemon=True)
            for i, name in enumerate(names)
        )
        for thread in self.threads:
            thread.start()
        self._finalizer = weakref.finalize(self, _dismiss, self._board, self.threads)

    def run(self, tasks: Sequence[Callable[[], None]], abort: Callable[[], None]) -> None:
        """Run one task on each of the first threads and wait for all.

        Args:
            abort: makes tasks that wait for each other give up; called when one has failed.

        Raises:
            Failed: the first failure. After any exception the crew is closed.
        """
        board = self._board
        if board.closing:
            raise BaechiError("B606", "the executor is closed", help="make a new one")
        board.abort = abort
        board.tasks[: len(tasks)] = tasks
        try:
            for lock in board.go[: len(tasks)]:
                lock.release()
            for lock in board.done[: len(tasks)]:
                lock.acquire()
            if board.failures:
                raise Failed(*board.failures[0])
        except BaseException:
            abort()
            self.close()
            raise
        finally:
            board.abort = _nothing
            board.failures.clear()

    def close(self) -> None:
        """End the threads."""
        self._finalizer()


class Failed(Exception):
    """A task has failed: which, and with what."""

    def __init__(self, task: int, error: BaseException) -> None:
        super().__init__(task, error)
        self.task, self.error = task, error


def _work(board: _Board, i: int) -> None:
    torch.set_num_threads(1)
    while True:
        board.go[i].acquire()
        if board.closing:
            return
        task = board.tasks[i]
        board.tasks[i] = None
        try:
            if task is not None:
                task()
        except _Halt:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller gets it
            board.failures.append((i, error))
            board.abort()
        del task
        board.done[i].release()


def _dismiss(board: _Board, threads: Sequence[threading.Thread]) -> None:
    board.closing = True
    for lock in board.go:
        with contextlib.suppress(RuntimeError):  # released already: the thread comes by anyway
            lock.release()
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join()


def _closed_lock() -> Any:
    lock = threading.Lock()
    lock.acquire()
    return lock


def _nothing() -> None:
    return None


class Threaded:
    """A schedule written out for the threads of a crew.

    Args:
        job: what to write; all its devices are the CPU.
        crew: its threads; needs one for each agent.
        updates: what carries out each ``update`` op, given the gradient.
        inference: makes inference tensors, a little faster; they cannot be written to elsewhere.
        names: what a probed source calls.
    """

    def __init__(
        self,
        job: Job,
        crew: Crew,
        updates: Mapping[str, Callable[[torch.Tensor], None]],
        *,
        inference: bool = True,
        names: Mapping[str, Any] | None = None,
    ) -> None:
        self.schedule, self._job = job.schedule, job
        self._crew, self._inference = crew, inference
        self._box: list[Any] = [None] * len(self.schedule.actions)
        self._stop: list[bool] = []
        number = {agent: i for i, agent in enumerate(self.schedule.agents)}
        locks = {(i, number[a]): _closed_lock() for i, who in self.schedule.awaited.items() for a in who}
        self._locks = tuple(locks.values())
        shared = {"BOX": self._box, "STOP": self._stop, "HALT": _halt, "CLONE": torch.clone, "UPDATES": updates}
        shared |= {f"A{i}_{a}": lock.acquire for (i, a), lock in locks.items()}
        shared |= {f"R{i}_{a}": lock.release for (i, a), lock in locks.items()}
        self.codes: tuple[Code, ...] = tuple(
            write_agent(job, agent, {**shared, **(names or {})}) for agent in self.schedule.agents
        )
        self._preloads = self._find_preloads(job)

    def _find_preloads(self, job: Job) -> tuple[tuple[int, str, str], ...]:
        """Copies of what is present: the lane finds its source in the box."""
        made = {t.name for a in self.schedule.actions if a.op for t in job.program.graph.op[a.op].outputs}
        return tuple(
            (i, a.transfer[1], a.transfer[0])
            for i, a in enumerate(self.schedule.actions)
            if a.transfer is not None and a.transfer[0] not in made
        )

    def run(self, values: Values, kept: Values | None = None) -> dict[str, Any]:
        """Run once.

        Args:
            values: what is present, by device; it is taken out.
            kept: filled with what a later part needs, by device.

        Returns:
            The results by tensor name.

        Raises:
            BaechiError: B601 when an op fails; the runner is of no more use then.
        """
        results = self._job.given_results(values)
        for i, device, tensor in self._preloads:
            self._box[i] = values[device][tensor]
        tasks = [self._task(code, values, kept or {}, results) for code in self.codes]
        try:
            self._crew.run(tasks, self._abort)
        except Failed as failure:
            raise self._explain(failure) from failure.error
        finally:
            self._box[:] = [None] * len(self._box)
        return results

    def _task(self, code: Code, values: Values, kept: Values, results: dict[str, Any]) -> Callable[[], None]:
        mode = torch.inference_mode if self._inference else torch.no_grad

        def task() -> None:
            with mode():
                code.call(values, kept, results)

        return task

    def _abort(self) -> None:
        self._stop.append(True)
        for lock in self._locks:
            with contextlib.suppress(RuntimeError):  # nobody has to wait for it any more
                lock.release()

    def _explain(self, failure: Failed) -> BaechiError:
        code, error = self.codes[failure.task], failure.error
        where = f"device '{self.schedule.agents[failure.task].device}'"
        if (i := code.action_of(error)) is not None:
            where = str(self.schedule.actions[i])
        return BaechiError("B601", f"{where} failed: {type(error).__name__}: {error}")


def _halt() -> NoReturn:
    raise _Halt
