"""GPUs on a machine that has none: streams, events and an allocator that find what runs too early.

A kernel comes after all that its stream knows of when the kernel is issued, and after nothing else:
whatever it reads or writes must have been written before, and read before it is overwritten. Memory
that is freed serves the next allocation of its stream at once, or after the streams recorded for it.
"""

import itertools
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from baechi.backends.pytorch import streams


class _Properties:
    total_memory = 1 << 60


class Stream:
    """A queue of work, with the work by queue that its next kernel comes after."""

    numbers = itertools.count()

    def __init__(self, device: torch.device | None = None, priority: int = 0) -> None:
        self.device, self.number, self.clock = device, next(self.numbers), dict[int, int]()

    def know(self, clock: Mapping[int, int]) -> None:
        self.clock |= {k: max(n, self.clock.get(k, 0)) for k, n in clock.items()}

    def knows(self, clock: Mapping[int, int]) -> bool:
        return all(self.clock.get(k, 0) >= n for k, n in clock.items())

    def work(self) -> dict[int, int]:
        self.clock[self.number] = self.clock.get(self.number, 0) + 1
        return {self.number: self.clock[self.number]}

    def wait_stream(self, other: "Stream") -> None:
        self.know(other.clock)

    def wait_event(self, event: "Event") -> None:
        self.know(event.clock)


class Event:
    machine: "Machine"

    def __init__(self) -> None:
        self.clock: dict[int, int] = {}

    def record(self, stream: Stream) -> None:
        self.clock = dict(stream.clock)

    def synchronize(self) -> None:
        self.machine.waits.append("Event.synchronize")
        self.machine.host.know(self.clock)


class Block:
    """Memory of one storage."""

    def __init__(self, owner: Stream | None) -> None:
        self.owner, self.recorded = owner, set[Stream]()
        self.written, self.read = dict[int, int](), dict[int, int]()


class Generator:
    """Its state is the list of what was drawn from it."""

    def __init__(self) -> None:
        self.state: list[str] = []

    def graphsafe_get_state(self) -> "Generator":
        alias = Generator()
        alias.state = self.state
        return alias

    def graphsafe_set_state(self, other: "Generator") -> None:
        self.state = other.state


class Machine(TorchDispatchMode):
    """GPUs that run fake kernels.

    Attributes:
        races: what came too early.
        waits: what made the host wait for a GPU.
    """

    def __init__(self, gpus: int) -> None:
        super().__init__()
        self.host, self.device = Stream(), 0
        self.current = [Stream(torch.device("cuda", i)) for i in range(gpus)]
        self.generators = [Generator() for _ in range(gpus)]
        self.blocks: dict[int, tuple[Any, Block]] = {}
        self.freed: dict[int, list[tuple[Block, dict[int, int]]]] = {}
        self.races, self.waits = list[str](), list[str]()
        Event.machine = self

    def install(self, patch: pytest.MonkeyPatch) -> None:
        def set_stream(stream: Stream) -> None:
            assert stream.device is not None
            self.current[stream.device.index] = stream
            self.device = stream.device.index

        @contextmanager
        def use(stream: Stream) -> Iterator[None]:
            before, device = self.current[stream.device.index], self.device  # type: ignore[union-attr]
            set_stream(stream)
            yield
            set_stream(before)
            self.device = device

        names: dict[str, Any] = {
            "Stream": Stream,
            "Event": Event,
            "current_device": lambda: self.device,
            "current_stream": lambda device: self.current[device.index],
            "default_generators": self.generators,
            "device_count": lambda: len(self.current),
            "get_device_properties": lambda _: _Properties,
            "memory_allocated": lambda _: 0,
            "set_per_process_memory_fraction": lambda *_: None,
            "set_device": lambda device: setattr(self, "device", device),
            "set_stream": set_stream,
            "stream": use,
            "synchronize": lambda *_: self.waits.append("torch.cuda.synchronize"),
        }
        for name, value in names.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(streams, "_STREAMS", {})
        patch.setattr(streams, "_FEEDERS", {})
        patch.setattr(torch.Tensor, "record_stream", lambda t, stream: self.block(t).recorded.add(stream))
        patch.setattr(torch.Tensor, "pin_memory", lambda t: t.clone())

    def stream(self, device: torch.device) -> Stream:
        """Where a kernel goes: a GPU's current stream, which comes after what the host has done."""
        if device.type != "cuda":
            return self.host
        self.current[device.index].know(self.host.clock)
        return self.current[device.index]

    def block(self, tensor: torch.Tensor) -> Block:
        storage = tensor.untyped_storage()
        if id(storage) not in self.blocks:
            stream = self.stream(tensor.device)
            block = Block(None if stream is self.host else stream)
            key = id(storage)
            self.blocks[key] = (weakref.ref(storage, lambda _: self.free(key)), block)
            for other, events in self.freed.pop(stream.number, ()):
                after = {k: max(stream.clock.get(k, 0), events.get(k, 0)) for k in (*other.read, *other.written)}
                if any(after[k] < n for uses in (other.read, other.written) for k, n in uses.items()):
                    self.races.append("memory is reused that is still in use")
        return self.blocks[id(storage)][1]

    def free(self, key: int) -> None:
        _, block = self.blocks.pop(key)
        if block.owner is not None:
            events = Stream()
            for stream in block.recorded:
                events.know(stream.clock)
            self.freed.setdefault(block.owner.number, []).append((block, events.clock))

    def kernel(self, name: str, stream: Stream, reads: list[torch.Tensor], writes: list[torch.Tensor]) -> None:
        read, written = [self.block(t) for t in reads], [self.block(t) for t in writes]
        if not all(stream.knows(b.written) for b in read):
            self.races.append(f"{name} reads what is not written yet")
        if not all(stream.knows(b.written) and stream.knows(b.read) for b in written):
            self.races.append(f"{name} overwrites what is in use")
        done = stream.work()
        for block in read:
            block.read |= done
        for block in written:
            block.written |= done

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        known = {id(t.untyped_storage()) for t in given}
        out = func(*args, **(kwargs or {}))
        made = [t for t in pytree.tree_leaves(out) if isinstance(t, torch.Tensor)]
        new = [t for t in made if id(t.untyped_storage()) not in known]
        if func._schema.is_mutable:
            new += [
                a for a, s in zip(args, func._schema.arguments, strict=False) if s.alias_info and s.alias_info.is_write
            ]
        if new and "empty" in func.__name__:
            for tensor in new:
                self.block(tensor)
        elif new:
            self.run(func.__name__, given, new)
        if torch.Tag.nondeterministic_seeded in func.tags and new[0].device.type == "cuda":
            self.generators[new[0].device.index].state.append(func.__name__)
        if func is torch.ops.aten._local_scalar_dense.default:
            self.waits.append("item")
        return out

    def run(self, name: str, reads: list[torch.Tensor], writes: list[torch.Tensor]) -> None:
        """A kernel, or a copy between devices, as torch does it."""
        source, destination = (next((t.device for t in ts), writes[0].device) for ts in (reversed(reads), writes))
        if not name.startswith(("copy_", "_to_copy")) or source == destination:
            self.kernel(name, self.stream(destination), reads, writes)
            return
        here, there = self.stream(source), self.stream(destination)
        if self.host in (here, there):
            stream = here if there is self.host else there
            self.kernel(name, stream, reads, writes)
            if not (there is stream and name.startswith("copy_")):  # from pinned memory nobody waits
                self.waits.append(name)
                self.host.know(stream.clock)
            return
        if not torch.ops.aten.is_non_overlapping_and_dense.default(reads[-1]):
            self.kernel("gather", here, reads[-1:], [])
        here.wait_stream(there)
        self.kernel(name, here, reads, writes)
        there.wait_stream(here)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    found = Machine(3)
    found.install(monkeypatch)
    with FakeTensorMode(allow_non_fake_inputs=True), found:
        yield found
