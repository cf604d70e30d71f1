"""What a script sees of its peer in a cluster: it has a stage of the model, trains it, and may ask for all of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from baechi.backends.pytorch.materialize import record
from baechi.errors import BaechiError
from baechi.frontends.pytorch import TorchProgram, build_meta, capture
from baechi.replicas.cluster.body import Ended
from baechi.replicas.cluster.crew_checkpoint import load_stage, save_stage, stage_checkpoints
from baechi.replicas.cluster.station import Rules, Station
from baechi.replicas.ravnest.flow import check_flow
from baechi.replicas.ravnest.layout import Layout, lay_out
from baechi.replicas.ravnest.nodes import Node
from baechi.replicas.ravnest.pipeline import Batch, Worker
from baechi.replicas.ravnest.rings import Floats

__all__ = ["CrewRules", "CrewSession", "Post", "enter_crew", "join_cluster"]

_T = TypeVar("_T")
_ALONE = "here"


class CrewRules(Rules, Protocol):
    """What all peers share, as `Roll` has it."""

    def publish(self, layout: Layout | Ended) -> None:
        """As `Roll.publish`."""

    def layout(self) -> Layout | Ended:
        """As `Roll.layout`."""


@dataclass(frozen=True, slots=True)
class CrewSession:
    """A peer's place in a run of clusters.

    Attributes:
        peer: which one.
        nodes: all peers.
        station: of this one; None when the script runs alone.
        rules: that all share.
        ask: the weights that another peer holds; arguments as for `Station.weights`.
        clusters: how many; as many as can hold the model when None.
        placer: what cuts it.
        under_way: at most so many micro-batches at once in a cluster.
        average_every: micro-batches from one average to the next.
        average_optimizer: whether the optimisers' state is averaged as well.
        seed: of the searches.
        checkpoint: directory of checkpoints, which all peers can read; none when empty.
        checkpoint_every: micro-batches from one to the next, at least; they are written where an average is due.
        resume: whether to go on from the newest one.
    """

    peer: int = 0
    nodes: tuple[Node, ...] = ()
    station: Station | None = None
    rules: CrewRules | None = None
    ask: Callable[[int, int, int], Mapping[str, Floats]] | None = None
    clusters: int | None = None
    placer: str = "contiguous"
    under_way: int | None = None
    average_every: int = 16
    average_optimizer: bool = False
    seed: int = 0
    checkpoint: str = ""
    checkpoint_every: int = 100
    resume: bool = False


_SESSION = CrewSession()


def enter_crew(session: CrewSession) -> None:
    """From here on this process is a peer of a run of clusters."""
    global _SESSION
    _SESSION = session


def join_cluster(
    build: Callable[[], nn.Module],
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    loss: Callable[..., Any] | str,
    target: Any = None,
    optimizer: Any = "sgd",
    optimizer_options: Mapping[str, Any] | None = None,
) -> "Post":
    """Become a peer of a cluster that holds one model together.

    Under ``baechi replicas --peers FILE -- train.py`` each peer makes the weights of its own stage only. Without, one
    stage has the whole model.

    Args:
        build: makes the model, the same one in every process.
        args, kwargs: example inputs of one micro-batch.
        loss: ``loss(output, target)``; ``"output"`` when the model gives it.
        target: example of the second argument of the loss.
        optimizer: a name such as ``adam`` or a class; each stage has its own.
        optimizer_options: of it.

    Returns:
        The peer's post.

    Raises:
        BaechiError: B7xx when the step cannot be captured, B855 when the peers cannot hold it, B859 when it has no loss or
            optimiser, or stops gradients somewhere.

    Example:
        >>> build = lambda: torch.nn.Linear(2, 1)
        >>> x, y = torch.ones(4, 2), torch.zeros(4, 1)
        >>> mse = torch.nn.functional.mse_loss
        >>> post = join_cluster(build, (x,), target=y, loss=mse, optimizer_options={"lr": 0.1})
        >>> losses = post.train([(x, y)] * 3, 3)
        >>> losses[0] > losses[2], sorted(post.weights())
        (True, ['bias', 'weight'])
    """
    program = capture(
        build_meta(build),
        args,
        kwargs,
        loss=loss,
        target=target,
        optimizer=optimizer,
        optimizer_options=optimizer_options,
    )
    leaves = pytree.tree_leaves((tuple(args), dict(kwargs or {})))
    targets = [] if target is None else pytree.tree_leaves(target)
    return Post(_SESSION, program, build, [*leaves, *targets], len(targets))


class Post:
    """A peer's post in its cluster; `join_cluster` makes it.

    Attributes:
        cluster: which cluster it is of, from 0; None for a peer without a stage.
        clusters: how many there are.
        stage: which stage it has; None without.
        stages: how many its cluster has.
        done: micro-batches that its cluster has worked off.
    """

    def __init__(
        self,
        session: CrewSession,
        program: TorchProgram,
        build: Callable[[], nn.Module],
        example: Sequence[Any],
        targets: int,
    ) -> None:
        self._session, self._program, self._example, self._targets = session, program, example, targets
        layout = self._layout = _layout_of(session, program, targets)
        if layout.graph != program.graph.digest:
            raise BaechiError("B859", "another peer has captured another step", help="run the same script everywhere")
        seat = layout.seat(session.peer)
        self.cluster, self.stage, self.clusters, self.done = seat.cluster, seat.stage, len(layout.peers), 0
        self.stages, self._turn = 0 if seat.cluster is None else len(layout.peers[seat.cluster]), 0
        self._seat, self._again, self._saved = seat, 0, 0
        self._worker: Worker | None = None
        self._values: Mapping[str, Tensor] = {}
        self._station = session.station or Station(_ALONE, _to_nobody)
        if seat.cluster is None or seat.stage is None:
            self._station.take_seat(layout, seat)
            return
        cut = layout.cut(program, seat.cluster, targets)
        values = record(build).values(cut.names(seat.stage))
        worker = Worker(seat.stage, self.stages, cut.stage(seat.stage, values), layout.under_way[seat.cluster])
        self._worker, self._values = worker, values
        self._kept = stage_checkpoints(session.checkpoint, layout, seat)
        if session.checkpoint and session.resume and (folder := self._kept.newest()) is not None:
            self._again, self._turn = load_stage(self._kept, folder, layout, worker.stage, values)
        rings, before = layout.rings(program, targets), {"done": self._again, "turn": self._turn}
        self._station.take_seat(layout, seat, worker, rings, values, **before)

    @property
    def is_last(self) -> bool:
        """Whether this peer has the losses."""
        return self.stage is not None and self.stage == self.stages - 1

    def part(self, samples: Sequence[_T]) -> Sequence[_T]:
        """This cluster's part of all samples: every `clusters`-th; of a tensor too."""
        return samples[(self.cluster or 0) :: self.clusters]

    def train(self, batches: Iterable[tuple[Any, Any]], count: int) -> list[float]:
        """Train this cluster on so many micro-batches, and average with the others now and then.

        Those that were done before a checkpoint are taken from the batches and left out.

        Args:
            batches: pairs of inputs (a tensor, or a tuple of the model's arguments) and target, all shaped as the
                examples; the first stage takes them, the others only work.
            count: how many; the same in all clusters.

        Returns:
            Their losses in the last stage; elsewhere nothing.

        Raises:
            BaechiError: B808 when another peer of the cluster is gone, B858 on a batch that does not fit, or too few.
        """
        losses: list[float] = []
        if self.cluster is None:
            return losses
        skipped = min(self._again, count)
        fed = (self._batch(inputs, target) for inputs, target in islice(batches, skipped, None))
        session, end = self._session, self.done + count
        self.done, self._again, self._saved = self.done + skipped, self._again - skipped, self._saved + skipped
        while self.done < end:
            every = session.average_every
            part = min(every - self.done % every, end - self.done)
            losses += self._station.work(fed, self.done, part)
            self.done += part
            if self.clusters > 1 and (self.done % every == 0 or self.done == end):
                self._average()
            if session.checkpoint and (self.done - self._saved >= session.checkpoint_every or self.done == end):
                self._save()
        return losses

    def weights(self) -> dict[str, Tensor]:
        """All parameters and buffers of this cluster's model as its peers have them now, by their names."""
        if self.cluster is None:
            return {}
        found, ask = self._station.weights(), self._session.ask
        for peer in self._layout.peers[self.cluster]:
            if peer != self._session.peer and ask is not None:
                found |= ask(peer, self.done, self._turn)
        return {name: torch.from_numpy(value) for name, value in found.items()}

    def _average(self) -> None:
        rules = self._session.rules
        assert rules is not None  # who is alone is one cluster
        self._station.average(self._turn, rules, with_state=self._session.average_optimizer)
        self._turn += 1

    def _save(self) -> None:
        assert self._worker is not None  # who trains has a stage
        save_stage(self._kept, self._layout, self.done, self._turn, self._worker.stage, self._values)
        self._saved = self.done

    def _batch(self, inputs: Any, target: Any) -> Batch:
        """The tensors that the step reads."""
        given = pytree.tree_leaves((tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,), {}))
        given += [] if target is None or not self._targets else pytree.tree_leaves(target)
        if len(given) != len(self._example):
            what = f"a micro-batch has {len(given)} inputs, and the step was captured with {len(self._example)}"
            raise BaechiError("B858", what, help="give (inputs, target) as in join_cluster")
        for i, (one, like) in enumerate(zip(given, self._example, strict=True)):
            if isinstance(like, Tensor) and (one.shape, one.dtype) != (like.shape, like.dtype):
                what = f"input {i} of a micro-batch is {_shape(one)}, and the step was captured with {_shape(like)}"
                raise BaechiError("B858", what, help="give micro-batches of one shape; leave an odd last one out")
        read = [leaf if op is not None else None for leaf, op in zip(given, self._program.inputs, strict=True)]
        first = len(read) - self._targets
        return _tensors(read[:first]), _tensors(read[first:])


def _layout_of(session: CrewSession, program: TorchProgram, targets: int) -> Layout:
    """The first peer forms the clusters for all."""
    if session.rules is None:
        home = {op.name: _ALONE for op in program.graph.ops}
        return Layout(program.graph.digest, ((0,),), (home,), ((_ALONE,),), (1,), (0.0,))
    if session.peer == 0:
        options: Any = {"placer": session.placer, "under_way": session.under_way, "seed": session.seed}
        try:
            check_flow(program, targets)
            session.rules.publish(lay_out(program, session.nodes, session.clusters, **options))
        except BaechiError as error:
            session.rules.publish(Ended(error.code, error.what, error.help))
    found = session.rules.layout()
    if isinstance(found, Ended):
        raise BaechiError(found.code, found.what, help=found.help)
    return found


def _tensors(leaves: Sequence[Any]) -> tuple[Tensor, ...]:
    return tuple(leaf.detach() for leaf in leaves if isinstance(leaf, Tensor))


def _shape(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


def _to_nobody(to: int, what: str, arguments: Any) -> None:
    """A peer that is alone sends nothing."""
