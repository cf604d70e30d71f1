"""Try the CUDA runner on the GPUs of this machine: several devices of a plan on each.

    python tools/check_cuda.py

Losses must be those of plain training on one GPU, dropout included; the memory of each GPU must stay
within the sum of what was predicted for its devices; ops of one device must not overlap in the
measured timeline, and a step must return before the GPUs have run it. Exits 0 where there is no GPU.
"""

import argparse
import copy
import itertools
import random
import sys
import time

import torch
from torch import nn

from baechi.backends.plans import plan_in_program_order
from baechi.backends.pytorch.cuda import limit_devices
from baechi.backends.pytorch.executor import Executor
from baechi.frontends.pytorch import capture
from baechi.frontends.pytorch.program import TorchProgram
from baechi.ir.cluster import Cluster, Device
from baechi.ir.plan import Plan
from baechi.placers import get_placer
from baechi.profile.step import trace_step

SHARE = 8 * 2**30
"""Bytes that the check may take on each GPU; less where less is free."""


class Net(nn.Module):
    """Convolutions with batch norm, then attention with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3, stride=2))
        self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 256, 0.1, batch_first=True), 2)
        self.out = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.layers(self.stem(x).flatten(2).transpose(1, 2)).mean(1))


def train_plain(module: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int) -> list[float]:
    gpu = torch.device("cuda", torch.cuda.current_device())
    module, x, y = copy.deepcopy(module).to(gpu), x.to(gpu), y.to(gpu)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    losses = []
    torch.manual_seed(1)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):  # as it was captured
        for _ in range(steps):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(module(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return [float(loss) for loss in losses]


def plans_of(program: TorchProgram, cluster: Cluster, seeds: int) -> dict[str, Plan]:
    """Random placements, and one that a placer chose."""
    made = {"m-etf": get_placer("m-etf").place(program.graph, cluster)}
    for seed in range(seeds):
        choose = random.Random(seed)
        where = {group: choose.choice(cluster.devices).name for group in program.graph.groups}
        device = {op.name: where[op.group or op.name] for op in program.graph.ops}
        made[f"random {seed}"] = plan_in_program_order(program.graph, device, cluster)
    return made


def check(program: TorchProgram, plan: Plan, devices: dict[str, torch.device], data: tuple, wanted: list[float]) -> str:
    """Run one plan; what is wrong with it, or nothing."""
    module, x, y = data
    gpus = sorted(set(devices.values()), key=str)
    base = {gpu: torch.cuda.memory_allocated(gpu) for gpu in gpus}
    limit_devices(plan, devices)
    executor = Executor(program, plan, devices={name: devices[name] for name in plan.order}).load(module)
    for gpu in gpus:
        torch.cuda.reset_peak_memory_stats(gpu)
    torch.manual_seed(1)
    start = time.perf_counter()
    losses = [executor.step(x, y) for _ in wanted]
    issued = time.perf_counter() - start
    found = [float(loss) for loss in losses]
    total = time.perf_counter() - start
    peaks = {gpu: torch.cuda.max_memory_allocated(gpu) - base[gpu] for gpu in gpus}
    problems = []
    worst = max(abs(a - b) / abs(b) for a, b in zip(found, wanted, strict=True))
    if worst > 1e-3:
        problems.append(f"losses {found}, plain {wanted}")
    for gpu in gpus:
        predicted = sum(plan.predicted.peak_bytes.get(n, 0) for n, d in devices.items() if d == gpu)
        print(f"    {gpu}: peak {peaks[gpu] / 2**20:.0f} MiB, predicted {predicted / 2**20:.0f}")
        if plan.predicted.peak_bytes and peaks[gpu] > 1.1 * predicted + 64 * 2**20:  # workspaces of cuBLAS besides
            problems.append(f"{gpu} took {peaks[gpu]} bytes, predicted were {predicted}")
    spans = sorted((s.device, s.start, s.end) for s in trace_step(executor, (x, y)).ops)
    if any(a[0] == b[0] and b[1] < a[2] - 20e-6 for a, b in itertools.pairwise(spans)):
        problems.append("ops of one device overlap")
    executor.close()
    print(f"    losses differ by {worst:.1e} at most; issued in {issued:.3f} s, done after {total:.3f} s")
    return "; ".join(problems)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--per-gpu", type=int, default=2, help="devices of the plan on each GPU")
    arguments.add_argument("--steps", type=int, default=6)
    arguments.add_argument("--seeds", type=int, default=3)
    args = arguments.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here: nothing to check")
        return 0
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    devices, kinds = {}, []
    for i in range(torch.cuda.device_count()):
        share = min(SHARE, int(torch.cuda.mem_get_info(i)[0] * 0.9)) // args.per_gpu
        for j in range(args.per_gpu):
            devices[f"gpu{i}.{j}"] = torch.device("cuda", i)
            kinds.append(Device(f"gpu{i}.{j}", share, backend="cuda", flops_per_second={"float32": 1e13}, speed=1.0))
    torch.manual_seed(0)
    module, x, y = Net(), torch.randn(16, 3, 32, 32), torch.randint(10, (16,))
    options = {"loss": nn.functional.cross_entropy, "target": y, "portable": True}
    program = capture(module, (x,), optimizer="adamw", optimizer_options={"lr": 1e-3}, **options)
    wanted = train_plain(module, x, y, args.steps)
    bad = 0
    for name, plan in plans_of(program, Cluster(tuple(kinds)), args.seeds).items():
        print(f"{name}: {len(program.graph.ops)} ops, {len(plan.transfers)} transfers, {len(devices)} devices")
        if problem := check(program, plan, devices, (module, x, y), wanted):
            bad += 1
            print(f"    WRONG: {problem}")
    print(f"{bad} plans went wrong" if bad else "all is well")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
