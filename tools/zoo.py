"""Train public architectures as placed and as they are, and write down which give the same numbers.

    python tools/zoo.py -o models/ZOO.md
    python tools/zoo.py gpt2 "lstm, 2 layers"

Each is built at a tiny size with random weights, its step (forward, backward, update) is captured, placed on
three virtual devices with 60 % of the step's memory each (more where one op needs more), and run for two steps
on two different batches, dropout and batch norm in training mode. Nothing is downloaded.
"""

import argparse
import contextlib
import copy
import importlib.metadata
import multiprocessing
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import _zoo_torch
import _zoo_transformers
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from baechi.api import place_graph
from baechi.backends.pytorch.executor import Executor
from baechi.config import parse_cluster
from baechi.errors import BaechiError, Infeasible
from baechi.files import write_atomic
from baechi.frontends.pytorch import capture
from baechi.frontends.pytorch.modules import evaluate_loss
from baechi.ir.graph import Graph
from baechi.ir.plan import Plan

__all__ = ["Row", "check", "names", "page"]

DEVICES, CAPS, PLACER = 3, (60, 70, 80, 90, 100), "m-etf"
OPTIONS = {"lr": 0.05, "momentum": 0.9}
TOLERANCE = 1e-5
SMALL = 0.1  # a bias before a batch norm has no gradient but rounding errors
PATIENCE_SECONDS = 120.0

Loss = Callable[..., Any] | str
Batch = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one architecture.

    Attributes:
        parameters: how many numbers are trained or frozen in it.
        ops: of the captured step, weights and inputs included.
        devices: how many of the three the plan uses.
        cap: memory of each device, in percent of what the step needs on one.
        seconds: the capture took.
        loss_error: largest relative difference of a loss.
        weight_error: largest difference of a parameter or buffer after two steps, over the largest number in it.
        why: the error, when there is one.
    """

    name: str
    family: str
    parameters: int = 0
    ops: int = 0
    devices: int = 0
    cap: int = 0
    seconds: float = 0.0
    loss_error: float = 0.0
    weight_error: float = 0.0
    why: str = ""

    @property
    def works(self) -> bool:
        """Whether the placed step gave the numbers of the plain one."""
        return not self.why and max(self.loss_error, self.weight_error) <= TOLERANCE


def names() -> tuple[str, ...]:
    """The architectures, sorted."""
    return tuple(sorted((*_zoo_torch.MODELS, *_zoo_transformers.MODELS)))


def check(name: str) -> Row:
    """Capture, place and run one architecture, beside plain training of it.

    Raises:
        BaechiError: what stops the capture, the placement or the run.
    """
    torch.manual_seed(0)
    if name in _zoo_torch.MODELS:
        module, example = _zoo_torch.model(name), _zoo_torch.MODELS[name][1]
        batches: list[Batch] = [(example(), {}), (example(), {})]
        return _compare(name, "torch.nn", module, batches, _zoo_torch.mean_square)
    module, given = _zoo_transformers.model(name)
    batches = [((), given), ((), _zoo_transformers.MODELS[name][2]())]
    return _compare(name, "transformers", module, batches, _zoo_transformers.own_loss)


def _compare(name: str, family: str, module: nn.Module, batches: Sequence[Batch], loss: Loss) -> Row:
    start = time.perf_counter()
    args, kwargs = batches[0]
    program = capture(module, args, kwargs, loss=loss, optimizer="sgd", optimizer_options=OPTIONS, name=name)
    seconds = time.perf_counter() - start
    cap, plan = _place(program.graph)
    plain = copy.deepcopy(module)
    expected = _train(plain, copy.deepcopy(batches), loss)
    with Executor(program, plan).load(module) as executor:
        torch.manual_seed(1)
        losses = [executor.step(*pytree.tree_leaves(batch)).item() for batch in copy.deepcopy(batches)]
        state = executor.state_dict()
    weights = [*plain.named_parameters(remove_duplicate=False), *plain.named_buffers(remove_duplicate=False)]
    return Row(
        name,
        family,
        sum(p.numel() for p in module.parameters()),
        len(program.graph),
        len(set(plan.device.values())),
        cap,
        seconds,
        max(_relative(torch.tensor(a), torch.tensor(b)) for a, b in zip(losses, expected, strict=True)),
        max(_relative(state[key], value.detach()) for key, value in weights),
    )


def _place(graph: Graph) -> tuple[int, Plan]:
    """The first cap under which a plan is found, and the plan."""
    for cap in CAPS[:-1]:
        with contextlib.suppress(Infeasible):
            return cap, place_graph(graph, parse_cluster(f"{DEVICES}x{cap}%"), PLACER)
    return CAPS[-1], place_graph(graph, parse_cluster(f"{DEVICES}x{CAPS[-1]}%"), PLACER)


def _train(module: nn.Module, batches: Iterable[Batch], loss: Loss) -> list[float]:
    optimizer = torch.optim.SGD(module.parameters(), **OPTIONS)
    losses = []
    torch.manual_seed(1)
    for args, kwargs in batches:
        optimizer.zero_grad()
        value = evaluate_loss(loss, module(*args, **kwargs), None, with_target=False)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


def _relative(value: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest number, but at least `SMALL`; 0.0 only when they are equal, bit by bit."""
    if torch.equal(value, expected):
        return 0.0
    wide = torch.complex128 if expected.is_complex() else torch.float64
    largest = (value.to(wide) - expected.to(wide)).abs().max() / expected.to(wide).abs().max().clamp(min=SMALL)
    return float(torch.nan_to_num(largest, nan=float("inf")))


def attempt(name: str) -> Row:
    """`check`, with whatever it raises as part of the row: one architecture never stops the others."""
    family = "torch.nn" if name in _zoo_torch.MODELS else "transformers"
    try:
        return check(name)
    except BaechiError as error:
        return Row(name, family, why=f"{error.code}: {error.what}")
    except Exception as error:  # noqa: BLE001  a row says what a person's code, or ours, raised
        return Row(name, family, why=f"{type(error).__name__}: {(str(error) or '-').splitlines()[0]}")


def _serve(pipe: Connection) -> None:
    """Check what is asked for, one after the other."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    _zoo_transformers.be_quiet()
    while (name := pipe.recv()) is not None:
        pipe.send(attempt(name))


def run(wanted: Sequence[str], report: Callable[[Row], None]) -> list[Row]:
    """Check architectures in another process, which is replaced when it dies or hangs."""
    rows: list[Row] = []
    spawn = multiprocessing.get_context("spawn")
    while len(rows) < len(wanted):
        mine, theirs = spawn.Pipe()
        process = spawn.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        for name in wanted[len(rows) :]:
            rows.append(_ask(mine, name))
            report(rows[-1])
            if rows[-1].why.startswith("no answer"):
                break
        else:
            mine.send(None)
            process.join(PATIENCE_SECONDS)
        process.kill()
        process.join()
    return rows


def _ask(pipe: Connection, name: str) -> Row:
    family = "torch.nn" if name in _zoo_torch.MODELS else "transformers"
    pipe.send(name)
    try:
        if pipe.poll(PATIENCE_SECONDS):
            row: Row = pipe.recv()
            return row
    except EOFError:
        return Row(name, family, why="no answer: the process died")
    return Row(name, family, why=f"no answer within {PATIENCE_SECONDS:.0f} s")


def page(rows: Sequence[Row], command: str) -> str:
    """The table of what works and why not, as Markdown."""
    good = sorted((r for r in rows if r.works), key=lambda r: (r.family, r.name))
    bad = sorted((r for r in rows if not r.works), key=lambda r: (r.family, r.name))
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("torch", "transformers", "baechi"))
    equal = sum(1 for r in good if max(r.loss_error, r.weight_error) == 0)
    head = f"""# Zoo: which architectures train as placed

{len(good)} of {len(rows)} architectures train on {DEVICES} devices to the numbers of plain training, {equal} of them
bit by bit; {len(bad)} do not, and the second table says why.

Made by `{command}` on {time.strftime("%Y-%m-%d")} with {versions}, Python {platform.python_version()},
on {os.cpu_count()} cores of {_processor()}.

Each architecture is built at a tiny size, with random weights. Its whole training step (forward, loss, backward,
SGD with momentum) is captured, placed by `{PLACER}` on {DEVICES} virtual devices, and run for two steps on two
different batches, in training mode. Each device has {CAPS[0]} % of the memory that the step needs on one ("cap"), or more
where a single op needs more. Then both losses, all parameters and all buffers are compared with those of plain PyTorch on one
thread, from the same seed. "equal" is bit by bit; a number is the largest difference in a tensor over its largest
number (at least {SMALL}), and up to {TOLERANCE:.0e} counts as working: gradients are summed in another order there.

## Works

| architecture | from | parameters | ops | devices | cap | capture | loss | weights |
|---|---|--:|--:|--:|--:|--:|---|---|
"""
    lines = [
        f"| {r.name} | {r.family} | {r.parameters:,} | {r.ops:,} | {r.devices} | {r.cap} % | {r.seconds:.1f} s "
        f"| {_difference(r.loss_error)} | {_difference(r.weight_error)} |"
        for r in good
    ]
    rest = [f"| {r.name} | {r.family} | {_reason(r)} |" for r in bad]
    return "\n".join(
        [head + "\n".join(lines), "\n## Does not\n\n| architecture | from | why |\n|---|---|---|", *rest, ""]
    )


def _reason(row: Row) -> str:
    if row.why:
        return row.why.replace("|", "\\|").replace("\n", " ")
    return f"other numbers: loss {row.loss_error:.1e}, weights {row.weight_error:.1e}"


def _difference(error: float) -> str:
    return "equal" if error == 0 else f"{error:.0e}"


def _processor() -> str:
    found = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return found[0] if found else platform.machine()


def main() -> None:
    """Check the architectures asked for, and print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="architectures; all by default")
    parser.add_argument("-o", "--output", help="write the page here")
    args = parser.parse_args()
    for name in args.names:
        if name not in names():
            parser.error(f"no architecture '{name}'; one of: {', '.join(names())}")

    def report(row: Row) -> None:
        print(f"{row.name}: {'works' if row.works else _reason(row)}", file=sys.stderr, flush=True)

    rows = run(args.names or names(), report)
    command = "python tools/zoo.py" + "".join(f" {n!r}" for n in args.names)
    text = page(rows, command + (f" -o {args.output}" if args.output else ""))
    if args.output:
        write_atomic(args.output, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
