"""Real replicas on this machine, beside synchronous all-reduce: losses, step rates, a straggler, a killed one, costs.

python tools/bench_cluster.py losses      MNIST-5k and byte-level transformer, 4 placed replicas, beside torch.distributed
python tools/bench_cluster.py straggler   one of four replicas takes four times as long: the rates of the others
python tools/bench_cluster.py killed      one of four dies: the rates of the others meanwhile
python tools/bench_cluster.py cost        what gossip costs a step at rising capacity, and what the step costs gossip

straggler and cost take the names of problems: mnist, bytes.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SCRIPTS = {"mnist": (HERE / "train_mnist.py", 1500), "bytes": (HERE / "train_bytes.py", 800)}
COUNT = 4
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def gossip(
    problem: str, *more: str, flags: tuple[str, ...] = (), count: int = COUNT
) -> tuple[Any, list[dict[str, Any]]]:
    """A run of replicas: what the command says, and what each script found at its end."""
    script, steps = SCRIPTS[problem]
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "baechi", "replicas", "-n", str(count), "--json", *flags, "--", str(script)]
        command += ["--steps", str(steps), "--out", out, *more]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, check=True)
        return json.loads(ran.stdout), _found(out)


def allreduce(problem: str) -> list[dict[str, Any]]:
    """The same by all-reduce of gradients at each step."""
    script, steps = SCRIPTS[problem]
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(COUNT), str(script)]
        command += ["--allreduce", "--steps", str(steps), "--out", out]
        subprocess.run(command, stdout=subprocess.DEVNULL, env=ENVIRONMENT, check=True)
        return _found(out)


def _found(out: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(Path(out).glob("*.json"))]


def losses() -> None:
    """Held-out losses and step rates."""
    print(
        "| problem | steps | all-reduce: loss | steps/s | gossip: loss, mean of 4 | worst | / all-reduce | steps/s | times |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for problem, (_, steps) in SCRIPTS.items():
        base = allreduce(problem)
        _, found = gossip(problem)
        loss = statistics.mean(f["loss"] for f in found)
        rate, base_rate = (statistics.median(f["rate"] for f in each) for each in (found, base))
        print(
            f"| {problem} | {steps:,} | {base[0]['loss']:.4f} | {base_rate:.0f} | {loss:.4f} | "
            f"{max(f['loss'] for f in found):.4f} | {loss / base[0]['loss']:.3f} | {rate:.0f} | {rate / base_rate:.2f} |",
            flush=True,
        )


def straggler(*problems: str) -> None:
    """Rates with and without one that is slow."""
    print("| problem | rate of the others, none slow | one 4 x slower | ratio |")
    print("|---|---|---|---|")
    for problem in problems or SCRIPTS:
        rates = []
        for more in ((), ("--slow", "3:4")):
            _, found = gossip(problem, *more)
            rates.append(statistics.median(f["rate"] for f in found if f["index"] != 3))
        print(f"| {problem} | {rates[0]:.0f}/s | {rates[1]:.0f}/s | {rates[1] / rates[0]:.2f} |", flush=True)


def killed() -> None:
    """Rates of the others from the death of one until it is back, beside their rates before."""
    from baechi.replicas.cluster.body import Body
    from baechi.replicas.cluster.driver import Driver
    from baechi.replicas.cluster.hub import HubOptions
    from baechi.replicas.cluster.run import RunOptions

    script, _ = SCRIPTS["mnist"]
    with tempfile.TemporaryDirectory() as logs:
        body = Body(str(script), ("--steps", "100000"), logs=logs, threads=1)
        with Driver(RunOptions(HubOptions(COUNT)), body) as driver:
            now = driver.statuses()
            while len(now) < COUNT or min(s["steps"] for s in now.values()) < 100:
                driver.poll()
                now = driver.statuses()
            before = _rates(driver, 5.0)
            os.kill(now[1]["pid"], signal.SIGKILL)
            began = time.monotonic()
            during = _rates(driver, 5.0)
            while driver.statuses()[1]["incarnation"] == 0 or driver.statuses()[1]["steps"] == 0:
                driver.poll()
            print(f"killed      others at {during / before:.2f} of their rate in the 5 s after, median")
            print(f"back        after {time.monotonic() - began:.1f} s, with the model of another")


def _rates(driver: Any, seconds: float) -> float:
    first, began = driver.statuses(), time.monotonic()
    while time.monotonic() - began < seconds:
        driver.poll()
    last, took = driver.statuses(), time.monotonic() - began
    return statistics.median((last[i]["steps"] - first[i]["steps"]) / took for i in (0, 2, 3))


def cost(*problems: str) -> None:
    """Steps and exchanges beside each other at several capacities."""
    print("| problem | exchanges/s asked | begun | steps/s | times one without | there and back | age | law |")
    print("|---|---|---|---|---|---|---|---|")
    for problem in problems or SCRIPTS:
        alone = 0.0
        for capacity in (0.0, 1.0, 5.0, 20.0, 80.0):
            data, found = gossip(problem, flags=("--capacity", str(capacity)))
            rate = statistics.median(f["rate"] for f in found)
            alone = alone or rate
            rows, delays = data["replicas"], data["exchange_seconds"]
            begun = len(delays) / max(1e-9, sum(r["steps"] / r["steps_per_second"] for r in rows))
            took = f"{1e3 * statistics.median(delays):.1f} ms" if delays else ""
            law = f"{statistics.mean(r['law'] for r in rows):.1f}" if delays else ""
            age = statistics.mean(r["version_age"] for r in rows)
            print(
                f"| {problem} | {capacity:g} | {begun:.1f} | {rate:.0f} | {rate / alone:.2f} | {took} | {age:.1f} | {law} |",
                flush=True,
            )


if __name__ == "__main__":
    known = {"losses": losses, "straggler": straggler, "killed": killed, "cost": cost}
    if len(sys.argv) < 2 or sys.argv[1] not in known or (sys.argv[2:] and sys.argv[1] not in ("cost", "straggler")):
        raise SystemExit(__doc__)
    known[sys.argv[1]](*sys.argv[2:])
