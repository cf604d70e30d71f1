"""Worker processes against the plain model: same losses, speed of transfers, overhead, real memory caps.

python tools/bench_workers.py losses      four models on 2 and 4 workers, ten steps
python tools/bench_workers.py transfers   4 MB tensors through the workers' wires and through bare gloo
python tools/bench_workers.py overhead    one placed device beside the plain eager step
python tools/bench_workers.py two         Inception-V3 on two devices: predicted, measured, one thread
python tools/bench_workers.py predicted   three models on 1, 2 and 4 devices, or those named (gnmt, gnmt:2): step and peaks, measured / predicted
python tools/bench_workers.py memory      a step of 6 GiB on four workers of 2 GiB, and the plain model
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BAECHI = (sys.executable, "-m", "baechi")
MODELS = {"inception_v3": 4, "gnmt": 8, "transformer": 8, "gpt2": 2}
CAPS = {2: "2x75%", 4: "4x60%"}
NBYTES, REPEATS = 4_000_000, 100
RUNS = 3


def run(*arguments: object) -> Any:
    """A command of ours, its data as JSON."""
    command = [*BAECHI, *map(str, arguments), "--json"]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode:
        raise SystemExit(ran.returncode)
    return json.loads(ran.stdout)


def losses() -> None:
    """Ten steps of each model, placed and plain."""
    print(
        "| model | batch | workers | parameters in them | worst loss difference | worst peak / predicted | over a cap |"
    )
    print("|---|---|---|---|---|---|---|")
    for model, batch in MODELS.items():
        for count, caps in CAPS.items():
            with tempfile.TemporaryDirectory() as folder:
                plan = Path(folder) / "plan.json"
                run("place", f"models:{model}", "--batch", batch, "--cluster", caps, "--placer", "m-etf", "-o", plan)
                ran = run("run", plan, "--steps", 9, "--plain")
                cluster = json.loads(plan.read_text())["cluster"]
            plain = ran["plain"][-1]["losses"]
            worst = max(abs(a - b) / abs(b) for a, b in zip(ran["losses"], plain, strict=True))
            held = " + ".join(f"{n / 1e6:.1f} M" for n in ran["parameters"].values())
            predicted, peaks = ran["predicted"]["peak_bytes"], ran["peak_bytes"]
            ratio = max(peaks[d] / predicted[d] for d in peaks)
            over = sum(peaks[d["name"]] > d["memory_bytes"] for d in cluster["device"] if d["name"] in peaks)
            same = "equal" if worst == 0 else f"{worst:.1e}"
            print(f"| {model} | {batch} | {count} | {held} | {same} | {ratio:.3f} | {over} |", flush=True)


def transfers() -> None:
    """Bandwidth of two processes, one way, the two ways of sending in turns."""
    if "RANK" in os.environ:
        return _one_end(int(os.environ["RANK"]))
    from baechi.backends.pytorch.workers.world import host_store
    from baechi.cli.children import child_environment

    _, port = host_store()
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "transfers"]
    ends = [subprocess.Popen(command, env=child_environment({**common, "RANK": str(rank)})) for rank in range(2)]
    for end in ends:
        end.wait()


def _one_end(rank: int) -> None:
    import torch
    import torch.distributed as dist

    from baechi.backends.pytorch.workers.part import Layout, Wire
    from baechi.backends.pytorch.workers.wires import Wires
    from baechi.backends.pytorch.workers.world import find_world
    from baechi.profile.wire import raw_bandwidth

    world = find_world()
    dist.init_process_group("gloo", store=world.store, rank=rank, world_size=2)
    layout = Layout((NBYTES // 4,), (1,), torch.float32)
    ends = {i: Wire(f"t{i}", 1 - rank, layout) for i in range(REPEATS)}
    values = [torch.zeros(NBYTES // 4) for _ in range(REPEATS)]
    speeds = []
    for _ in range(9):
        cached, fresh = (raw_bandwidth(1 - rank, NBYTES, REPEATS, ring=ring) for ring in (4, REPEATS))
        ours = _wired(Wires(ends, rank, torch.device("cpu"), {}), rank, values)
        speeds.append((ours, fresh, cached))
    if rank == 0:
        print(
            f"workers    {statistics.median(ours for ours, _, _ in speeds) / 1e9:.2f} GB/s, tensors of {NBYTES / 1e6:g} MB"
        )
        for i, what in ((1, "into 100 tensors"), (2, "into 4 tensors in turns")):
            raw = statistics.median(speed[i] for speed in speeds)
            ratio = statistics.median(speed[0] / speed[i] for speed in speeds)
            print(f"bare gloo  {raw / 1e9:.2f} GB/s {what}; the workers reach {ratio:.2f} x, median of pairs")


def _wired(wires: Any, rank: int, values: list[Any]) -> float:
    import torch
    import torch.distributed as dist

    dist.barrier()
    done = torch.zeros(1)
    start = time.perf_counter()
    if rank == 0:
        for i in range(REPEATS):
            wires.send(i, values[i % len(values)])
        wires.finish()
        dist.recv(done, 1)
    else:
        ahead = REPEATS
        for i in range(ahead):
            wires.post(i)
        for i in range(REPEATS):
            if i + ahead < REPEATS:
                wires.post(i + ahead)
            wires.take(i)
        dist.send(done, 0)
    return NBYTES * REPEATS / (time.perf_counter() - start)


def overhead(pairs: int = 7) -> None:
    """The plain eager step and the step placed on one device, in turns, each on one thread."""
    import torch
    from torch.utils import _pytree as pytree

    from baechi.backends.plans import plan_in_program_order
    from baechi.backends.pytorch.executor import Executor
    from baechi.frontends.pytorch.modules import evaluate_loss
    from baechi.frontends.pytorch.optimizers import optimizer_spec
    from baechi.target import load_target

    torch.set_num_threads(1)
    print("| model | batch | plain eager step | placed on one device | placed / plain, median of pairs |")
    print("|---|---|---|---|---|")
    for model, batch in MODELS.items():
        target = load_target(f"models:{model}", batch=batch)
        job = target.job
        assert job is not None
        plan = plan_in_program_order(target.graph, {op.name: "cpu:0" for op in target.graph.ops})
        module = job.build()
        executor = Executor(target.program, plan).load(module)
        spec = optimizer_spec(job.optimizer, job.optimizer_options)
        assert spec is not None
        optimizer = spec.make(dict(module.named_parameters()))
        flat = pytree.tree_leaves(tuple(job.inputs))

        def plain(module: Any = module, optimizer: Any = optimizer, job: Any = job) -> None:
            optimizer.zero_grad()
            output = module(*job.args)
            evaluate_loss(job.loss, output, job.target, with_target=job.target is not None).backward()
            optimizer.step()

        def placed(executor: Any = executor, flat: Any = flat) -> None:
            executor.step(*flat)

        plain()
        placed()
        times = [(_seconds(plain), _seconds(placed)) for _ in range(pairs)]
        executor.close()
        eager, ours = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(b / a for a, b in times)
        print(f"| {model} | {batch} | {eager * 1e3:.0f} ms | {ours * 1e3:.0f} ms | {ratio:.2f} |", flush=True)


def _seconds(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def two() -> None:
    """Two devices of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "plan.json"
        run("place", "models:inception_v3", "--batch", 4, "--cluster", "2x8GiB", "--measure", "-o", plan)
        ran = run("run", plan, "--steps", 9, "--warmup", 2, "--plain")
        step, predicted = ran["step_seconds"]["median"], ran["predicted"]["step_seconds"]
        plain = ran["plain"][-1]["step_seconds"]
        print(f"two devices  {predicted:.2f} s predicted, {step:.2f} s measured, {step / predicted:.2f} x")
        print(f"plain        {plain:.2f} s on one thread, {plain / step:.2f} x the placed one")


def predicted(*models: str) -> None:
    """What is predicted before a run, by `place --measure` and then by the op times of the run before, and after it.

    After it the op times are those of the run itself. Measured are its steps in which nothing is noted.
    """
    from baechi.cli.saved import planned

    print(
        f"| model | batch | devices | predicted by `--measure` | measured in {RUNS} runs | "
        "measured / predicted before each run | median | by its own op times | peaks, measured / predicted |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for named in models or ("inception_v3", "gnmt", "transformer"):
        model, _, only = named.partition(":")
        for count, caps in {1: "1x8GiB", **CAPS}.items():
            if only not in ("", str(count)):
                continue
            with tempfile.TemporaryDirectory() as folder:
                plan, batch = Path(folder) / "plan.json", MODELS[model]
                placed = run("place", f"models:{model}", "--batch", batch, "--cluster", caps, "-o", plan, "--measure")
                said, measured, peaks = [placed["predicted"]["step_seconds"]], [], []
                for _ in range(RUNS):
                    ran = run("profile", plan, "--steps", 9, "--warmup", 2)
                    step = planned(str(plan))
                    said.append(step.timeline.step_seconds)
                    measured.append(ran["step_seconds"]["median"])
                    peaks += [ran["peak_bytes"][d] / b for d, b in step.plan.predicted.peak_bytes.items() if b]
            before = [m / p for m, p in zip(measured, said[:-1], strict=True)]
            after = [m / p for m, p in zip(measured, said[1:], strict=True)]
            took, ratios = (", ".join(f"{value:.2f}" for value in values) for values in (measured, before))
            print(
                f"| {model} | {batch} | {count} | {said[0]:.2f} s | {took} s | {ratios} | "
                f"{statistics.median(before):.2f} | {min(after):.2f} to {max(after):.2f} | "
                f"{min(peaks):.3f} to {max(peaks):.3f} |",
                flush=True,
            )


def memory() -> None:
    """What does not fit in one device's memory trains on four."""
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "plan.json"
        model = ("models:mlp", "--set", "width=8192", "--set", "depth=9", "--batch", "16")
        for command in (
            ("place", *model, "--cluster", "4x2GiB", "-o", plan),
            ("run", plan, "--steps", "3", "--plain"),
        ):
            print("$ baechi", *command, flush=True)
            subprocess.run([*BAECHI, *map(str, command)], check=False)


if __name__ == "__main__":
    known = {"losses": losses, "transfers": transfers, "overhead": overhead, "two": two}
    known |= {"predicted": predicted, "memory": memory}
    if len(sys.argv) < 2 or sys.argv[1] not in known or (len(sys.argv) > 2 and sys.argv[1] != "predicted"):
        raise SystemExit(__doc__)
    known[sys.argv[1]](*sys.argv[2:])
