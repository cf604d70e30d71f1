"""Replicas from Python: the same run as ``baechi replicas``, of a function."""

import tempfile
from collections.abc import Callable
from typing import Any

from baechi.replicas.cluster.body import Body
from baechi.replicas.cluster.crew_driver import CrewDriver, CrewOutcome
from baechi.replicas.cluster.crew_settings import crew_options
from baechi.replicas.cluster.driver import Driver, default_threads
from baechi.replicas.cluster.run import Outcome
from baechi.replicas.cluster.settings import run_options

__all__ = ["train", "train_clusters"]


def train(
    function: Callable[[], Any],
    replicas: int = 2,
    *,
    config: str | None = None,
    logs: str = "",
    threads: int = 0,
    show: Callable[[Any], None] | None = None,
    **options: Any,
) -> Outcome:
    """Train replicas of a model that gossip, each in a process of its own, under Ray.

    Args:
        function: what each replica does: it makes the model, calls `baechi.replicas.join` and trains. It and what it
            refers to is sent to the processes.
        replicas: how many.
        config: a TOML file of options.
        logs: directory where their output goes; a new one when empty.
        threads: of torch in each process; the cores of this machine shared out when 0.
        show: called now and then with the replicas' statuses.
        options: as of ``baechi replicas``: ``devices``, ``mixing``, ``capacity``, ``every``, ``topology``, ``rule``,
            ``max_staleness``, ``checkpoint``, ``resume``, ``address``, ``run``, ``restarts``, ``seed``, and those of
            the rule.

    Returns:
        How each ended, with its model, in the order of ``module.parameters()``.

    Raises:
        BaechiError: B801 on an option that makes no sense, B805 without Ray, B806 when it cannot be reached, B807 when
            no replica came to its end.
    """
    settings = run_options(config, {"replicas": replicas, **options})
    logs = logs or tempfile.mkdtemp(prefix="baechi-replicas-")
    processes = settings.hub.count * settings.hub.shares
    threads = threads or (default_threads(processes) if settings.address is None else 0)
    with Driver(settings, Body(function=function, logs=logs, threads=threads)) as driver:
        return driver.wait(show or (lambda statuses: None))


def train_clusters(
    function: Callable[[], Any],
    peers: str,
    *,
    logs: str = "",
    threads: int = 0,
    show: Callable[[Any], None] | None = None,
    **options: Any,
) -> CrewOutcome:
    """Train one model in clusters of unlike peers, each a process of its own, under Ray.

    Args:
        function: what each peer does: it calls `baechi.replicas.join_cluster` and trains.
        peers: a TOML file of ``[[peer]]`` tables.
        logs, threads, show: as for `train`.
        options: as of ``baechi replicas --peers``: ``clusters``, ``placer``, ``under_way``, ``average_every``,
            ``average_optimizer``, ``address``, ``seed``.

    Returns:
        How each ended, and the model of each cluster by the names of its weights.

    Raises:
        BaechiError: B801 on an option that makes no sense, B805 without Ray, B806 when it cannot be reached, B854 on bad
            peers, and what a peer ran into when no cluster came to its end.
    """
    settings = crew_options(flags={"peers": peers, **options})
    logs = logs or tempfile.mkdtemp(prefix="baechi-replicas-")
    threads = threads or (default_threads(len(settings.session.nodes)) if settings.address is None else 0)
    body = Body(function=function, logs=logs, threads=threads)
    with CrewDriver(settings.session, body, settings.address) as driver:
        return driver.wait(show or (lambda statuses: None))
