"""One run of CP-SAT: it can be stopped, reports what it finds, and prints nothing."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ortools.sat.python import cp_model

from baechi.placers._cp_place import Literal

__all__ = ["Answer", "Effort", "ask"]

_TURN = 0.1  # seconds after which Ctrl-C is seen, or that it is over


@dataclass(frozen=True, slots=True)
class Effort:
    """What a run may cost.

    Attributes:
        deadline: when to stop, by `time.monotonic`.
        workers: threads.
        seed: of the solver's random choices.
        relaxes: whether a single thread solves linear relaxations too, which tell much of loads, little of moments.
    """

    deadline: float
    workers: int
    seed: int
    relaxes: bool = True

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.deadline - time.monotonic()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a run says.

    Attributes:
        ended: whether the search was completed.
        bound: on the objective of the model; None when the model has no solution.
        stopped: whether a person stopped it.
        work: that it took, in the solver's deterministic time.
    """

    ended: bool
    bound: int | None
    stopped: bool
    work: float


class _Watch(cp_model.CpSolverSolutionCallback):
    def __init__(self, found: Callable[[Callable[[Literal], int]], None]) -> None:
        super().__init__()
        self._found = found

    def on_solution_callback(self) -> None:
        self._found(lambda one: one if isinstance(one, int) else self.value(one))


def ask(
    model: cp_model.CpModel,
    hints: Iterable[tuple[Literal, int]],
    effort: Effort,
    work: float,
    found: Callable[[Callable[[Literal], int]], None],
    proved: Callable[[int], None],
    over: Callable[[], bool],
) -> Answer:
    """Minimise a model.

    Args:
        model: with an objective.
        hints: where to look first.
        effort: workers, seed and the end of all runs.
        work: for this run, in the solver's deterministic time, so that it ends at the same point each time.
        found: told each better solution as a function from variables to values, in another thread.
        proved: told each better bound, in another thread.
        over: asked now and then whether there is nothing left to gain.
    """
    for variable, value in hints:
        model.add_hint(variable, value)
    solver = cp_model.CpSolver()
    parameters = solver.parameters
    parameters.num_workers = effort.workers
    if effort.workers == 1 and not effort.relaxes:
        parameters.linearization_level = 0
    parameters.random_seed = effort.seed
    parameters.max_time_in_seconds = max(0.01, effort.left)
    parameters.max_deterministic_time = work
    parameters.catch_sigint_signal = False
    solver.best_bound_callback = lambda bound: proved(round(bound))
    status: list[cp_model.CpSolverStatus] = []
    done = threading.Event()  # to join a thread is not safe: interrupted, Python may take it for ended

    def solve() -> None:
        try:
            status.append(solver.solve(model, _Watch(found)))
        finally:
            done.set()

    threading.Thread(target=solve, daemon=True).start()
    stopped = False
    while not done.is_set():
        try:
            if not done.wait(_TURN) and over():
                solver.stop_search()
        except KeyboardInterrupt:
            stopped = True
            solver.stop_search()
    ended = status[0] in (cp_model.OPTIMAL, cp_model.INFEASIBLE)
    known = status[0] in (cp_model.OPTIMAL, cp_model.FEASIBLE, cp_model.UNKNOWN)
    bound = None if status[0] == cp_model.INFEASIBLE else round(solver.best_objective_bound) if known else 0
    return Answer(ended, bound, stopped, solver.response_proto.deterministic_time)
