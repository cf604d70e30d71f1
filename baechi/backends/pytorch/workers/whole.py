"""The whole step that workers' parts are cut from."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from baechi.frontends.pytorch.graph import draws
from baechi.frontends.pytorch.program import TorchProgram
from baechi.ir.plan import Plan, TransferKey
from baechi.ir.timeline import Timeline
from baechi.sim.flow import Flow

__all__ = ["Step", "ranks_of"]


def ranks_of(plan: Plan) -> dict[str, int]:
    """The worker of each device that has anything to do, in the cluster's order."""
    used = {device for device, ops in plan.order.items() if ops}
    return {device.name: i for i, device in enumerate(d for d in plan.cluster.devices if d.name in used)}


@dataclass(frozen=True, eq=False)
class Step:
    """What all parts are cut from.

    Attributes:
        program: the step, with a loss.
        plan: for its graph.
        timeline: what the simulator expects of the plan.
        flows: by device, when its worker may receive and must have sent.
    """

    program: TorchProgram
    plan: Plan
    timeline: Timeline
    flows: Mapping[str, Flow]

    @cached_property
    def ranks(self) -> dict[str, int]:
        """As `ranks_of`."""
        return ranks_of(self.plan)

    @cached_property
    def number(self) -> dict[TransferKey, int]:
        """The transfers as flow control orders them: as they begin, which is not the plan's order on parallel lanes."""
        return {(s.tensor, s.source, s.destination): i for i, s in enumerate(self.timeline.transfers)}

    @cached_property
    def random(self) -> tuple[str, ...]:
        """The ops that draw random numbers, in their order."""
        nodes, order = self.program.nodes, self.program.graph.order
        names = [self.program.graph.ops[i].name for i in order]
        return tuple(name for name in names if nodes.get(name) and draws(nodes[name][0]))

    @cached_property
    def results(self) -> tuple[str, ...]:
        """The tensors that the caller gets."""
        tensors = self.program.graph.tensor
        kept = [t for t in self.program.gradients.values() if tensors[t].keep]
        return tuple(dict.fromkeys(t for t in (*self.program.outputs, *kept) if t is not None))

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(source, destination) ranks of all directions, when all devices are GPUs."""
        if any(self.place(device).type != "cuda" for device in self.ranks):
            return ()
        return tuple(sorted({(self.ranks[a], self.ranks[b]) for _, a, b in self.plan.transfers}))

    def device_of(self, tensor: str) -> str:
        """Where a tensor is made."""
        return self.plan.device[self.program.graph.producer[tensor].name]

    def place(self, device: str) -> torch.device:
        """The torch device of a worker, numbered within its machine."""
        mine = self.plan.cluster.device[device]
        if mine.backend == "cpu":
            return torch.device("cpu")
        local = [d for d in self.plan.cluster.devices if d.host == mine.host and d.backend == mine.backend]
        return torch.device(mine.backend, [d.name for d in local].index(device))

    def cores(self, device: str) -> tuple[int, int]:
        """The first core of a worker, and how many all workers of its machine take."""
        host = self.plan.cluster.device[device].host
        local = [d for d in self.plan.cluster.devices if d.host == host and d.name in self.ranks and d.backend == "cpu"]
        before = itertools.takewhile(lambda d: d.name != device, local)
        return sum(d.threads for d in before), sum(d.threads for d in local)
