"""Training in worker processes goes on from a checkpoint under another plan and number of workers."""

import importlib.util
import json
import random
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from baechi.api import timeline_of
from baechi.backends.plans import plan_in_program_order
from baechi.backends.pytorch.contents import contents
from baechi.backends.pytorch.steps import latest
from baechi.backends.pytorch.workers.emit import make_parts
from baechi.backends.pytorch.workers.part import pack
from baechi.backends.pytorch.workers.training import begin
from baechi.backends.pytorch.workers.world import World
from baechi.errors import BaechiError
from baechi.frontends.pytorch import capture
from baechi.ir.cluster import Cluster, Device, Link
from tests.backends.apart import exit_codes, free_port

_spec = importlib.util.spec_from_file_location("same_numbers", Path(__file__).with_name("test_same_numbers.py"))
assert _spec is not None
assert _spec.loader is not None
models = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(models)


class Net(nn.Module):
    """Dropout that differs in each step, a tied weight, and buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(5, 8), nn.BatchNorm1d(8)
        self.mix, self.head = nn.Linear(8, 8), nn.Linear(8, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        h = nn.functional.dropout(self.norm(self.embed(tokens).mean(1)), 0.2, self.training)
        return self.head(nn.functional.dropout(torch.tanh(self.mix(h)), 0.3, self.training))


def inputs() -> tuple[Tensor, Tensor]:
    return torch.arange(12).view(4, 3) % 5, torch.arange(4)


def packed(devices: int, seed: int) -> list[bytes]:
    torch.manual_seed(0)
    x, target = inputs()
    program = capture(Net(), (x,), loss=nn.functional.cross_entropy, target=target, optimizer="adamw")
    choose = random.Random(seed)
    names = [f"cpu:{i}" for i in range(devices)]
    where = {group: choose.choice(names) for group in program.graph.groups}
    device = {op.name: where[op.group or op.name] for op in program.graph.ops}
    cluster = Cluster(tuple(Device(name, 1 << 40) for name in names), Link(1e-5, 1e9))
    plan = plan_in_program_order(program.graph, device, cluster)
    return [pack(part) for part in make_parts(program, plan, timeline_of(program.graph, plan))]


def work(rank: int, port: int, parts: list[bytes], root: Path, steps: int, resume: bool) -> None:
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, len(parts), rank == 0)
    world = World(rank, len(parts), store)
    store.set(f"part/{rank}", parts[rank])
    torch.manual_seed(0)
    training = begin(world.part(), Net, world, capped=False)
    if resume:
        assert training.resume(root) == {"note": [1, "two"]}
    else:
        with pytest.raises(BaechiError) as error:
            training.resume(root)
        assert error.value.code == "B611"
    x, target = inputs()
    losses = [training(x, target=target) for _ in range(steps)]
    training.save(root, {"note": [1, "two"]})
    training.export(root, root.with_suffix(".pt"))
    found = [float(loss) for loss in losses if loss is not None]
    if found:
        root.with_suffix(".json").write_text(json.dumps(found), encoding="utf-8")
    dist.barrier()


def run(count: int, seed: int, root: Path, steps: int, *, resume: bool) -> list[float]:
    """The losses of so many processes under a plan of that seed."""
    parts, port = packed(count, seed), free_port()
    assert len(parts) == count
    each = [(rank, port, parts, root, steps, resume) for rank in range(count)]
    assert exit_codes(work, each, ["baechi.backends.pytorch.workers.training"], 60) == [0] * count
    losses: list[float] = json.loads(root.with_suffix(".json").read_text(encoding="utf-8"))
    return losses


def test_other_plans_go_on_as_one_unbroken_training(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Net()
    x, target = inputs()
    plain = torch.optim.AdamW(module.parameters())
    wanted = []
    for _ in range(9):
        plain.zero_grad()
        loss = nn.functional.cross_entropy(module(x), target)
        loss.backward()
        plain.step()
        wanted.append(loss.item())
    root = tmp_path / "run"
    found = run(3, 1, root, 4, resume=False)
    assert latest(root) == root / "step-00000004"
    found += run(2, 2, root, 3, resume=True) + run(1, 0, root, 2, resume=True)
    assert found == pytest.approx(wanted, rel=1e-5)
    newest = latest(root)
    assert newest is not None
    assert sorted(path.name for path in root.iterdir()) == ["step-00000007", "step-00000009"]
    assert contents(newest).tied == {"head.weight": "embed.weight"}
    exported = torch.load(root.with_suffix(".pt"), weights_only=True)
    assert list(exported) == list(module.state_dict())
    for name, value in module.state_dict().items():
        torch.testing.assert_close(exported[name], value, rtol=1e-5, atol=1e-6)
    Net().load_state_dict(exported)
