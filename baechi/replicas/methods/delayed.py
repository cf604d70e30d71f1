"""FedAsync's server under simulated delays: each update begins from one of the last versions, drawn at random."""

import pickle
from collections import deque

import torch
from torch import Tensor

from baechi.errors import BaechiError
from baechi.replicas.compress.base import Key
from baechi.replicas.methods.core import ProblemOracle
from baechi.replicas.methods.fedasync import Client, FedAsync
from baechi.replicas.methods.lockstep import Costs
from baechi.replicas.problems.base import Problem

__all__ = ["Delayed"]

_CLIENT, _DELAY = 20, 21


class Delayed:
    """n clients that work side by side: in H steps of each, the server has n updates.

    Which client comes next is drawn, and the version that it began from is 0 to `max_delay` behind, all
    equally likely. Nobody waits: a client's cycle is H steps, a push and a pull.

    Args:
        method: with its options.
        problem: has data for at least so many workers.
        workers: how many.
        seed: of the start and of all that is drawn.
        costs: for `seconds`.

    Raises:
        BaechiError: B832 when the problem has data for fewer workers.
    """

    def __init__(
        self, method: FedAsync, problem: Problem, workers: int, seed: int = 0, costs: Costs | None = None
    ) -> None:
        if not 1 <= workers <= problem.workers:
            raise BaechiError("B832", f"{workers} workers, and problem '{problem.name}' has data for {problem.workers}")
        self.o, self.problem, self.costs, self.seed = method, problem, costs or Costs(), seed
        start = problem.start(seed)
        self.server = method.server(start)
        self.clients = [self._client(i, workers, start) for i in range(workers)]
        self.past: deque[Tensor] = deque([start.clone()], maxlen=method.max_delay + 1)
        self.t, self.cycles, self.seconds, self.sent = 0, 0, 0.0, [0] * workers
        self._of_update = method.h * self.costs.step_seconds + 2 * (
            self.costs.latency + start.nbytes / self.costs.bytes_per_second
        )

    def step(self) -> None:
        """As many updates as n clients make in one local step each: n / H, in the long run exactly."""
        n, h = len(self.clients), self.o.h
        for _ in range((self.t + 1) * n // h - self.t * n // h):
            self.update()
        self.t += 1
        self.seconds += self._of_update / h

    def update(self) -> int:
        """One client's whole cycle.

        Returns:
            How many versions it was behind when it came back.
        """
        now = self.server.version
        client = self.clients[Key(self.seed, self.cycles, _CLIENT).number() % len(self.clients)]
        delay = Key(self.seed, self.cycles, _DELAY).number() % len(self.past)
        self.cycles += 1
        client.begin(self.past[-1 - delay], now - delay)
        while not client.local(ProblemOracle(self.problem, client.index, client.total)):
            pass
        self.sent[client.index] += client.x.nbytes
        if self.server.push(client.x, client.version):
            self.past.append(self.server.x.clone())
        return delay

    def model(self) -> Tensor:
        """The server's, (d,)."""
        return self.server.x

    def save(self) -> bytes:
        """All that changes, between two steps."""
        return pickle.dumps((self.server, self.clients, self.past, self.t, self.cycles, self.seconds, self.sent))

    def load(self, state: bytes) -> None:
        """As `Lockstep.load`."""
        self.server, self.clients, self.past, self.t, self.cycles, self.seconds, self.sent = pickle.loads(state)

    def _client(self, index: int, count: int, start: Tensor) -> Client:
        client = self.o.worker(index, count, torch.as_tensor(start), self.seed)
        if not isinstance(client, Client):
            raise TypeError(type(client).__name__)
        return client
