"""What tests of several folders share: random training graphs, the reference simulator, and brute force; and devices."""

import importlib.util
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from baechi.ir.graph import Graph
from baechi.ir.op import PHASES, Op, Phase, Tensor

settings.register_profile("untimed", deadline=None)  # how long a test takes says more about the machine
settings.load_profile("untimed")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it for what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@st.composite
def _training_graphs(draw: Any, grouped: bool = True) -> Graph:
    """Up to 24 ops in a shuffled order: views, kept tensors, zero costs, groups, twins, control edges.

    One seed decides everything but the size: drawing each choice is twenty times slower.
    """
    count, random = draw(st.integers(1, 24)), Random(draw(st.integers(0, 2**32)))
    phases: list[Phase] = sorted(random.choices(PHASES, k=count), key=PHASES.index)
    phases[0] = "forward"
    ops: list[Op] = []
    for i, phase in enumerate(phases):
        made = [t.name for op in ops for t in op.outputs]
        forward = [op.name for op in ops if op.phase == "forward"]
        inputs = tuple(random.sample(made, min(len(made), random.randint(0, 3))))
        op = Op(
            f"op{i}",
            random.choice(("mm", "update")) if phase == "update" else random.choice(("mm", "mm", "parameter")),
            inputs,
            tuple(_tensor(random, f"t{i}.{k}", inputs) for k in range(random.randint(0 if i else 1, 2))),
            tuple(random.sample([op.name for op in ops], min(i, random.randint(0, 1)))),
            phase,
            flops=float(random.randint(0, 3)),
            moved_bytes=random.randint(0, 3),
            temp_bytes=random.randint(0, 5),
            persistent_bytes=random.randint(0, 2),
            seconds=float(random.choice((0, 0, 1, 2, 8))),
            forward=random.choice([None, *forward]) if phase != "forward" else None,
            group=random.choice((None, None, "g0", "g1", "g2")) if grouped else None,
        )
        ops.append(op)
    random.shuffle(ops)
    return Graph(tuple(ops))


def _tensor(random: Random, name: str, inputs: tuple[str, ...]) -> Tensor:
    view = inputs[0] if inputs and random.random() < 0.25 else None
    return Tensor(name, random.randint(0, 9), alias_of=view, keep=random.random() < 0.15)


@pytest.fixture(scope="session")
def training_graphs() -> Callable[..., st.SearchStrategy[Graph]]:
    return _training_graphs


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """The reference simulator, `sim/reference.py`, which no package holds."""
    return _module(Path(__file__).parent / "sim" / "reference.py")


@pytest.fixture(scope="session")
def brute() -> ModuleType:
    """Tiny graphs and all their schedules, `brute.py`."""
    return _module(Path(__file__).with_name("brute.py"))


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Before a file of tests of TensorFlow is imported, there are several logical devices: its first tensor is too late."""
    if isinstance(collector, pytest.Module) and ("tf" in collector.path.parts or "_tf" in collector.path.stem):
        from baechi.backends.tf.devices import ensure_devices

        ensure_devices()
