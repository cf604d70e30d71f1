"""Starts the replicas of a run, brings back those that die, and says how they are."""

import itertools
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from baechi.errors import BaechiError
from baechi.replicas.cluster.actors import ReplicaActor, WorkerActor
from baechi.replicas.cluster.body import Body, Ended
from baechi.replicas.cluster.embedded import cluster
from baechi.replicas.cluster.run import Ages, Outcome, RunOptions, Statuses
from baechi.replicas.cluster.session import Session
from baechi.replicas.cluster.waiting import (
    POLL_SECONDS,
    STATUS_PATIENCE_SECONDS,
    answers,
    await_started,
    cores_each,
    explained,
)
from baechi.replicas.peer import Arrays

__all__ = ["Driver", "default_threads"]

_CALLS_AT_ONCE = 16


@dataclass
class _Replica:
    hub: Any
    workers: list[Any]
    tasks: dict[Any, int] = field(default_factory=dict)
    incarnation: int = 0
    ended: Ended | None = None


class Driver:
    """Replicas while they run; a context manager.

    Args:
        options: of the run.
        body: what each worker does.

    Raises:
        BaechiError: B805 without Ray, B806 when its cluster cannot be reached.
    """

    def __init__(self, options: RunOptions, body: Body) -> None:
        self._options = replace(options, hub=replace(options.hub, epoch=time.time()))
        self._body = body
        self._replicas: dict[int, _Replica] = {}
        self._statuses: dict[int, Mapping[str, Any]] = {}
        self._began = time.monotonic()
        self._method: Any = None
        self._ray: Any = None
        self._open: Any = None

    def __enter__(self) -> Self:
        count = self._options.hub.count
        self._open = cluster(self._options.address)
        self._ray = self._open.__enter__()
        try:
            with explained(self._ray, "a replica"):
                taken = self._members()
                joining = bool(taken)
                free = (i for i in itertools.count() if i not in taken)
                for index in itertools.islice(free, count):
                    self._replicas[index] = self._spawn(index, 0, joining)
                self._introduce(*self._replicas)
                if self._options.method:
                    self._method = self._place()
                for index in tuple(self._replicas):
                    self._send_off(index, joining)
        except BaseException:
            self._open.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(None, None, None)

    def add(self) -> int:
        """Start one replica more; it begins with the model of one that runs. Returns its number."""
        index = max(self._members(), default=-1) + 1
        with explained(self._ray, "a replica"):
            self._replicas[index] = self._spawn(index, 0, True)
            self._introduce(index)
            self._send_off(index, True)
        return index

    def statuses(self) -> Statuses:
        """How all are now; the last that is known of one that does not answer."""
        asked = {replica.hub.status.remote(): index for index, replica in self._replicas.items()}
        self._statuses |= answers(self._ray, asked)
        return dict(self._statuses)

    def wait(self, show: Callable[[Statuses], None] = lambda statuses: None) -> Outcome:
        """Wait until all have ended; `show` is called now and then.

        Raises:
            BaechiError: B807 when none came to its end.
        """
        ages = Ages()
        while any(replica.ended is None for replica in self._replicas.values()):
            self.poll()
            statuses = self.statuses()
            if all(replica.ended is None for replica in self._replicas.values()):
                ages.add(statuses)
            show(statuses)
        statuses = self.statuses()
        models = {i: m for i, r in self._replicas.items() if (m := self._model(r)) is not None}
        ended = {i: r.ended for i, r in self._replicas.items() if r.ended is not None}
        faults = {i: e for i, e in ended.items() if e.code}
        if faults and len(faults) == len(ended):
            index, first = next(iter(faults.items()))
            raise BaechiError(first.code, f"replica {index}: {first.what}", help=first.help)
        restarts = {i: r.incarnation for i, r in self._replicas.items()}
        return Outcome(statuses, ended, restarts, models, ages.means(), time.monotonic() - self._began)

    def poll(self) -> None:
        """Look once whether a replica has ended or died, and bring back what died."""
        tasks = [task for replica in self._replicas.values() for task in replica.tasks]
        if not tasks:
            time.sleep(POLL_SECONDS)
            return
        ready, _ = self._ray.wait(tasks, num_returns=1, timeout=POLL_SECONDS)
        for task in ready:
            index = next(i for i, replica in self._replicas.items() if task in replica.tasks)
            self._settle(index, task)

    def call(self, index: int, method: str, *arguments: Any) -> Any:
        """Ask a replica's process something, by the name of a method of `ReplicaActor`."""
        return self._ray.get(getattr(self._replicas[index].hub, method).remote(*arguments))

    def _settle(self, index: int, task: Any) -> None:
        replica = self._replicas[index]
        try:
            ended: Ended = self._ray.get(task)
        except self._ray.exceptions.RayActorError:
            return self._revive(index)
        except self._ray.exceptions.RayError as error:
            ended = Ended("B807", str(error).splitlines()[0])
        del replica.tasks[task]
        if ended.code or not replica.tasks:
            replica.ended = ended
            replica.tasks.clear()
            with suppress(self._ray.exceptions.RayError):
                self._ray.get(replica.hub.rest.remote(), timeout=STATUS_PATIENCE_SECONDS)

    def _revive(self, index: int) -> None:
        """A process of a replica is gone: the rest of it goes too, and it comes back with the model of another."""
        replica = self._replicas[index]
        for actor in (replica.hub, *replica.workers):
            with suppress(Exception):
                self._ray.kill(actor)
        if replica.incarnation >= self._options.restarts:
            replica.ended = Ended("B808", f"it died {replica.incarnation + 1} times", "see what killed it")
            replica.tasks.clear()
            return
        others = any(i != index for i in self._members())
        self._replicas[index] = self._spawn(index, replica.incarnation + 1, others)
        self._introduce(index)
        self._send_off(index, others)

    def _spawn(self, index: int, incarnation: int, joining: bool) -> _Replica:
        ray, hub = self._ray, self._options.hub
        name = f"{self._options.run}:{index}:{incarnation}"
        cores = cores_each(self._options.address)
        made = ray.remote(max_concurrency=_CALLS_AT_ONCE, num_cpus=cores, name=name, max_restarts=0)(ReplicaActor)
        gang = []
        if hub.shares > 1:
            placed = ray.util.placement_group([{"CPU": cores}] * hub.shares, strategy="PACK")
            strategy = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(placed)
            worker = ray.remote(num_cpus=cores, scheduling_strategy=strategy)(WorkerActor)
            gang = [worker.remote() for _ in range(hub.shares)]
        return _Replica(made.remote(index, hub, incarnation, joining), gang, incarnation=incarnation)

    def _send_off(self, index: int, joining: bool) -> None:
        options, replica = self._options, self._replicas[index]
        sessions = [
            Session(
                index,
                options.hub.count,
                rank,
                options.hub.shares,
                None,
                options.every,
                options.buffers,
                str(Path(options.checkpoint) / f"replica-{index}") if options.checkpoint else "",
                options.checkpoint_every,
                options.resume or joining or replica.incarnation > 0,
                None if self._method is None else replace(self._method, index=index),
                options.hub,
            )
            for rank in range(options.hub.shares)
        ]
        if not replica.workers:
            replica.tasks = {replica.hub.train.remote(sessions[0], self._body): 0}
            return
        address = self._ray.get(replica.workers[0].address.remote())
        replica.tasks = {
            worker.train.remote(session, self._body, replica.hub, address): session.rank
            for worker, session in zip(replica.workers, sessions, strict=True)
        }

    def _place(self) -> Any:
        """What the workers of a method are told: how to reach each other, or a server."""
        from baechi.replicas.cluster.rounds import Place, ServerActor, has_server

        options = self._options
        place = Place(options.method, options.method_options, count=options.hub.count, seed=options.hub.seed)
        if has_server(options.method, options.method_options):
            server = self._ray.remote(num_cpus=0)(ServerActor).remote(options.method, options.method_options)
            return replace(place, server=server)
        return replace(place, rendezvous=self.call(0, "address"))

    def _introduce(self, *fresh: int) -> None:
        """Everybody knows everybody, those that another driver started too; waits for those that are new."""
        members = self._members()
        heard = {index: actor.meet.remote(members) for index, actor in members.items()}
        await_started(self._ray, [heard[index] for index in fresh], "replicas")

    def _members(self) -> dict[int, Any]:
        """By number, the newest life of each replica of this name on the cluster."""
        found: dict[int, Any] = {}
        lives: dict[int, int] = {}
        for name in self._ray.util.list_named_actors():
            run, _, rest = name.rpartition(":")[0].rpartition(":")
            life = name.rpartition(":")[2]
            if run == self._options.run and int(life) >= lives.get(int(rest), 0):
                with suppress(ValueError):
                    found[int(rest)], lives[int(rest)] = self._ray.get_actor(name), int(life)
        for index, replica in self._replicas.items():
            found[index] = replica.hub
        return dict(sorted(found.items()))

    def _model(self, replica: _Replica) -> Arrays | None:
        with suppress(self._ray.exceptions.RayError):
            model: Arrays | None = self._ray.get(replica.hub.model.remote(), timeout=STATUS_PATIENCE_SECONDS)
            return model
        return None


def default_threads(processes: int) -> int:
    """Threads of torch in each of so many processes on this machine."""
    return max(1, (os.cpu_count() or 1) // max(1, processes))
