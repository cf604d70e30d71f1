"""Training in several clusters: each an asynchronous pipeline of its own, their models averaged now and then.

Between two averages a cluster works off so many micro-batches and drains; then every slice of the parameters goes round
its ring (`baechi.replicas.ravnest.rings`). Where a peer dies, its slice is averaged without its cluster, which keeps
what that peer has in its checkpoint: here, what it had before.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from baechi.errors import BaechiError
from baechi.ir.graph import Graph
from baechi.ir.plan import Plan
from baechi.replicas.ravnest.pipeline import Batch, Carried, Pace, run, workers_of
from baechi.replicas.ravnest.rings import Averages, average
from baechi.replicas.ravnest.stage import Stage

__all__ = ["Trained", "average_stages", "averaged_tensors", "sequential_parts", "train"]


@dataclass(slots=True)
class Trained:
    """What training came to.

    Attributes:
        carried: by cluster, its runs between two averages.
        averages: after each of these.
    """

    carried: list[list[Carried]] = field(default_factory=list)
    averages: list[Averages] = field(default_factory=list)

    def losses(self, cluster: int) -> list[float]:
        """Of each micro-batch of a cluster, in order."""
        return [loss for one in self.carried[cluster] for loss in one.losses]


def train(
    clusters: Sequence[Sequence[Stage]],
    batches: Sequence[Sequence[Batch]],
    *,
    reduce_every: int,
    paces: Sequence[Pace] | None = None,
    average_optimizer: bool = False,
    deaths: Mapping[int, Mapping[tuple[int, int], int]] | None = None,
) -> Trained:
    """Train one model in several clusters.

    Args:
        clusters: stages of each; the parts hold the same parameter names, cut anywhere.
        batches: by cluster, its own micro-batches, as many as any other's.
        reduce_every: micro-batches between two averages.
        paces: by cluster, the pace of its work on the virtual clock.
        average_optimizer: whether the optimisers' state is averaged as well; step counts are not.
        deaths: by average, what `average` takes.

    Raises:
        BaechiError: B858 on data or a number that do not fit, B856 and B857 as `average`.
    """
    if reduce_every < 1 or len(batches) != len(clusters) or len({len(b) for b in batches}) != 1:
        what = f"{len(batches)} sets of batches for {len(clusters)} clusters, averaged every {reduce_every}"
        raise BaechiError(
            "B858", what, help="each cluster needs as many micro-batches as any other; averages, 1 or more"
        )
    workers = [workers_of(stages) for stages in clusters]
    trained = Trained([[] for _ in clusters])
    for turn, first in enumerate(range(0, len(batches[0]), reduce_every)):
        for c, own in enumerate(workers):
            part = batches[c][first : first + reduce_every]
            trained.carried[c].append(run(own, part, None if paces is None else paces[c], first=first))
        dying = (deaths or {}).get(turn)
        trained.averages.append(average_stages(clusters, average_optimizer=average_optimizer, deaths=dying))
    return trained


def average_stages(
    clusters: Sequence[Sequence[Stage]],
    *,
    average_optimizer: bool = False,
    deaths: Mapping[tuple[int, int], int] | None = None,
) -> Averages:
    """Put the mean over clusters into the stages' parameters; arguments and errors as `train` and `average`."""
    held = [[averaged_tensors(stage, average_optimizer) for stage in stages] for stages in clusters]
    order = [name for tensors in held[0] for name in tensors]
    arrays = [[{n: t.detach().numpy() for n, t in tensors.items()} for tensors in stages] for stages in held]
    found = average(arrays, order, deaths)
    stages = ((h, a) for own, new in zip(held, found.arrays, strict=True) for h, a in zip(own, new, strict=True))
    with torch.no_grad():
        for tensors, averaged in stages:
            for name, tensor in tensors.items():
                tensor.copy_(torch.from_numpy(averaged[name]))
    return found


def averaged_tensors(stage: Stage, with_state: bool) -> dict[str, Tensor]:
    """What of a stage is averaged: each parameter, and behind it the optimiser's state of its shape."""
    found: dict[str, Tensor] = {}
    for name, parameter in stage.parameters.items():
        found[name] = parameter
        state = stage.optimizer.state[parameter] if with_state and stage.optimizer is not None else {}
        alike = {k: v for k, v in state.items() if isinstance(v, Tensor) and v.shape == parameter.shape and v.dim()}
        found |= {f"{name}/{key}": value for key, value in alike.items()}
    return found


def sequential_parts(module: nn.Sequential, graph: Graph, plan: Plan) -> tuple[nn.Sequential, ...]:
    """Cut a chain of modules as a plan does: each child goes where most of its ops are.

    Args:
        module: the model; its parts share its parameters.
        graph: of a training step of it.
        plan: of that graph, made for a line of stages, as the placer ``contiguous`` does.

    Raises:
        BaechiError: B859 when the plan's devices take turns along the chain, so that it is no line of stages.
    """
    homes: list[str] = []
    for name, _ in module.named_children():
        counts: dict[str, int] = {}
        for op in graph.ops:
            if op.path == name or op.path.startswith(name + "."):
                counts[plan.device[op.name]] = counts.get(plan.device[op.name], 0) + 1
        homes.append(max(counts, key=counts.__getitem__) if counts else homes[-1] if homes else "")
    cuts = [i for i in range(len(homes)) if i == 0 or homes[i] != homes[i - 1]]
    if len({homes[i] for i in cuts}) != len(cuts):
        raise BaechiError(
            "B859", "the plan's devices take turns: it is no line of stages", help="place with contiguous"
        )
    children = list(module.named_children())
    ends = zip(cuts, [*cuts[1:], len(homes)], strict=True)
    return tuple(nn.Sequential(OrderedDict(children[i:j])) for i, j in ends)
