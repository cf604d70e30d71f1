"""A simulated training of the built-in regression by peers of one algorithm, measured as it goes, kept in a file."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from baechi.errors import BaechiError
from baechi.replicas.age_model import AgeModel, staleness_law
from baechi.replicas.conditions import Conditions
from baechi.replicas.draco import Draco
from baechi.replicas.draco_options import DracoOptions, draco_warning, receiver_weights
from baechi.replicas.events import Make, Simulator
from baechi.replicas.gossip import Gossip, GossipOptions
from baechi.replicas.regression import Regression
from baechi.replicas.state import read_state, write_state
from baechi.replicas.topology import Chooser, Topology, mixing_matrix, mixing_warning, parse_topology

__all__ = ["ALGORITHMS", "Sample", "Trial", "TrialOptions"]

ALGORITHMS = ("draco", "gossip")
_VERSION = 1


@dataclass(frozen=True, slots=True)
class TrialOptions:
    """What to simulate.

    Attributes:
        peers: how many.
        algorithm: one of `ALGORITHMS`.
        topology: as `parse_topology` reads it.
        gossip: of the peers, when they gossip.
        draco: of the peers, when they run DRACO.
        conditions: clocks, links and faults.
        problem: options of `Regression`.
        every: seconds from one sample to the next; the checkpoint is written as often.
        seed: of everything random.
    """

    peers: int
    algorithm: str = "gossip"
    topology: str = "complete"
    gossip: GossipOptions = field(default_factory=GossipOptions)
    draco: DracoOptions = field(default_factory=DracoOptions)
    conditions: Conditions = field(default_factory=Conditions)
    problem: dict[str, Any] = field(default_factory=dict)
    every: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise BaechiError(
                "B846", f"there is no algorithm '{self.algorithm}'", help=f"one of: {', '.join(ALGORITHMS)}"
            )
        if not self.every > 0:
            raise BaechiError("B846", "samples are more than 0 seconds apart")


class Sample(NamedTuple):
    """What was measured at a time, over the peers that run.

    Attributes:
        seconds: the time.
        loss: mean over the peers of the loss on all data.
        loss_of_mean: of the mean model.
        disagreement: root mean square distance of the models from their mean.
        staleness: updates that a peer's model misses of another peer, mean over pairs.
        up: how many run.
    """

    seconds: float
    loss: float
    loss_of_mean: float
    disagreement: float
    staleness: float
    up: int


class Trial:
    """A simulation and its samples.

    Args:
        options: what to simulate.

    Attributes:
        world: the simulator.
        problem: what is trained.
        samples: so far, the first at 0 seconds.
        warning: what a person should know about the mixing, or None.

    Example:
        >>> trial = Trial(TrialOptions(peers=4, problem={"skew": 0.0}))
        >>> trial.run(30.0)
        >>> trial.samples[-1].loss < 0.5 * trial.samples[0].loss
        True
    """

    def __init__(self, options: TrialOptions) -> None:
        self._begin(options)
        self.world = Simulator(options.peers, self._make, self.problem.step, options.conditions, seed=options.seed)
        self.samples: list[Sample] = [self._measure()]

    def _begin(self, options: TrialOptions) -> None:
        self.options = options
        self.problem = Regression(options.peers, seed=options.seed, **options.problem)
        self.topology = parse_topology(options.topology, options.peers, options.seed)
        self._make, self.warning = _maker(options, self.topology, self.problem)

    def run(
        self, until: float, checkpoint: str | Path | None = None, seen: Callable[[Sample], None] | None = None
    ) -> None:
        """Simulate to a time, in seconds; every sample is taken at a multiple of `every`.

        Args:
            until: the time.
            checkpoint: a file that always has the state at the newest sample.
            seen: is told of each sample.
        """
        while (at := len(self.samples) * self.options.every) <= until * (1 + 1e-12):
            self.world.run(at)
            self.samples.append(self._measure())
            if checkpoint is not None:
                self.save(checkpoint)
            if seen is not None:
                seen(self.samples[-1])
        self.world.run(until)

    def save(self, path: str | Path) -> None:
        """Write the state to a file; raises as `write_state`."""
        kept = {"version": _VERSION, "options": _plain(self.options), "samples": [tuple(s) for s in self.samples]}
        write_state(path, {**kept, "world": self.world.state()})

    @classmethod
    def resume(cls, path: str | Path, options: TrialOptions) -> "Trial":
        """Go on from a file, as if the simulation had never stopped.

        Args:
            path: what `save` wrote.
            options: as it was begun with; `every` is the file's.

        Raises:
            BaechiError: B844 when the file is none, B846 when it was begun with other options.
        """
        kept = read_state(path)
        if kept.get("version") != _VERSION:
            raise BaechiError("B844", f"{path} is no state of a trial")
        options = replace(options, every=kept["options"]["every"])
        ours = _plain(options)
        for name, value in kept["options"].items():
            if ours[name] != value:
                raise BaechiError(
                    "B846", f"{path} was begun with other options: {name}", help=f"there: {value}\nnow: {ours[name]}"
                )
        trial = cls.__new__(cls)
        trial._begin(options)
        trial.samples = [Sample(*row) for row in kept["samples"]]
        trial.world = Simulator.of_state(kept["world"], trial._make, trial.problem.step)
        return trial

    def mean_staleness(self, warmup: float) -> float | None:
        """Mean over the samples after a time, in seconds; None when there are none."""
        values = [s.staleness for s in self.samples if s.seconds > warmup]
        return float(np.mean(values)) if values else None

    def law(self) -> float | None:
        """E[S] for clocks like these, where it is known: all peers alike, nothing lost, no delay."""
        c, o = self.options.conditions, self.options
        plain = not (c.slow or c.churn or c.partitions or c.drop or c.latency.mean or c.bandwidth or c.burst)
        random = c.mixing.offset == 0 and c.mixing.law == "erlang" and c.mixing.shape == 1
        if not (plain and random and o.algorithm == "gossip" and o.topology in ("complete", "ring")):
            return None
        return staleness_law(AgeModel(self.topology, 1 / c.mixing.mean, 1 / c.compute.mean, mixing=o.gossip.mixing))

    def refused(self) -> dict[str, int]:
        """Messages that had no effect, by reason."""
        total: Counter[str] = Counter()
        for peer in self.world.peers:
            total.update(peer.guard.refused)  # type: ignore[attr-defined]
        return dict(sorted(total.items()))

    def losses(self) -> list[float]:
        """Of each peer's model on all data."""
        return [self.problem.loss(peer.arrays[0]) for peer in self.world.peers]

    def _measure(self) -> Sample:
        up = [i for i, runs in enumerate(self.world.up) if runs]
        models = np.array([self.world.peers[i].arrays[0] for i in up])
        if not up:
            return Sample(self.world.now, float("nan"), float("nan"), 0.0, 0.0, 0)
        mean = models.mean(axis=0)
        return Sample(
            self.world.now,
            float(np.mean([self.problem.loss(m) for m in models])),
            self.problem.loss(mean),
            float(np.sqrt(((models - mean) ** 2).sum(axis=1).mean())),
            self._staleness(up),
            len(up),
        )

    def _staleness(self, up: list[int]) -> float:
        if len(up) < 2:
            return 0.0
        known: list[dict[int, int]] = [self.world.peers[i].reflects for i in up]  # type: ignore[attr-defined]
        own = np.array([row.get(i, 0) for i, row in zip(up, known, strict=True)])
        behind = sum(int(np.maximum(own - [row.get(i, 0) for i in up], 0).sum()) for row in known)
        return behind / (len(up) * (len(up) - 1))


def _plain(options: TrialOptions) -> dict[str, Any]:
    """The options as plain data."""
    data = asdict(replace(options, conditions=Conditions()))
    c = options.conditions
    return {**data, "conditions": {name: repr(getattr(c, name)) for name in Conditions.__dataclass_fields__}}


def _maker(options: TrialOptions, topology: Topology, problem: Regression) -> tuple[Make, str | None]:
    if options.algorithm == "draco":
        return _draco_maker(options, topology, problem)

    def make(peer: int, incarnation: int, joining: bool) -> Gossip:
        choose = Chooser(topology, peer)
        return Gossip(peer, problem.start(), options.gossip, choose=choose, incarnation=incarnation, joining=joining)

    small = topology.peers <= 1024 and options.gossip.mixing == "pull"
    return make, mixing_warning(mixing_matrix(topology, options.gossip.weight)) if small else None


def _draco_maker(options: TrialOptions, topology: Topology, problem: Regression) -> tuple[Make, str | None]:
    n, draco = topology.peers, options.draco
    own = draco.own if draco.own < 1 else 0.0
    weights = receiver_weights(topology, own)

    def make(peer: int, incarnation: int, joining: bool) -> Draco:
        row = {j: float(weights[peer, j]) for j in range(n) if j != peer and weights[peer, j]}
        near = topology.neighbours(peer)
        return Draco(peer, problem.start(), row, near, n, draco, incarnation=incarnation, joining=joining)

    return make, draco_warning(weights, draco)
