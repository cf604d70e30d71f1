"""What the training scripts of the replicas' benchmark share: the loop, alone, as a replica, or by all-reduce."""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist

import baechi

Batch = tuple[torch.Tensor, torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def arguments(what: str, steps: int) -> argparse.Namespace:
    """The arguments of a training script."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--rate", type=float, default=0.1, help="learning rate at the start")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cluster", default="2x64MiB", help="on which the model is placed; empty for plain")
    parser.add_argument(
        "--allreduce", action="store_true", help="synchronous: gradients averaged at each step (torchrun)"
    )
    parser.add_argument("--slow", default="", metavar="REPLICA:TIMES", help="one that takes so many times as long")
    parser.add_argument("--out", default="", metavar="DIR", help="where to write what came out")
    return parser.parse_args()


def train(
    args: argparse.Namespace,
    build: Callable[[], torch.nn.Module],
    batches: Callable[[int, int, int], Iterator[Batch]],
    loss_of: Loss,
    held_out: Batch,
) -> None:
    """Train a model on batches(index, count, seed), and write its held-out loss, accuracy and step rate."""
    torch.manual_seed(args.seed)
    model = build()
    placed = baechi.place(model, cluster=args.cluster, placer="m-etf") if args.cluster else model
    optimizer = torch.optim.SGD(model.parameters(), args.rate)
    if args.allreduce:
        dist.init_process_group("gloo")
        index, count = dist.get_rank(), dist.get_world_size()
        steps, done = iter(range(args.steps)), lambda loss: None
    else:
        replica = baechi.replicas.join(placed, optimizer)
        index, count = replica.index, replica.count
        steps, done = replica.steps(args.steps), replica.step
    slow, _, times = args.slow.partition(":")
    stretch = float(times) - 1 if slow == str(index) else 0.0
    source = batches(index, count, args.seed)
    stamps = []
    for step in steps:
        began = time.perf_counter()
        x, y = next(source)
        loss = loss_of(placed(x), y)
        optimizer.param_groups[0]["lr"] = 0.5 * args.rate * (1 + math.cos(math.pi * step / args.steps))
        optimizer.zero_grad()
        loss.backward()
        if args.allreduce:
            for parameter in model.parameters():
                dist.all_reduce(parameter.grad)
                parameter.grad /= count
        optimizer.step()
        done(loss)
        if stretch:
            time.sleep(stretch * (time.perf_counter() - began))
        stamps.append(time.perf_counter())
    plain = build().eval()
    plain.load_state_dict(model.state_dict())
    _report(args, index, plain, loss_of, held_out, stamps)


def _report(
    args: argparse.Namespace, index: int, model: torch.nn.Module, loss_of: Loss, held_out: Batch, stamps: list[float]
) -> None:
    x, y = held_out
    with torch.no_grad():
        output = model(x)
        loss, accuracy = float(loss_of(output, y)), float((output.argmax(-1) == y).float().mean())
    middle = stamps[len(stamps) // 10 :]  # after the first call's planning
    rate = (len(middle) - 1) / (middle[-1] - middle[0])
    found = {"index": index, "loss": loss, "accuracy": accuracy, "rate": rate, "steps": len(stamps)}
    print(json.dumps(found))
    if args.out:
        Path(args.out).mkdir(parents=True, exist_ok=True)
        Path(args.out, f"{index}.json").write_text(json.dumps(found))
        torch.save([p.detach().clone() for p in model.parameters()], Path(args.out, f"{index}.pt"))
