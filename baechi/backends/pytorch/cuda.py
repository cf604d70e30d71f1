"""Run a schedule on CUDA devices: streams for compute, for receiving and for sending, fed by one thread.

The protocol is the paper's: a tensor is pushed to each device that reads it as soon as it exists, on
streams of its own; a reader waits for what it needs and for nothing else; what has arrived serves
every reader there. The waits are events between streams. The issuing thread itself waits only for a
device of the plan that is the CPU, so it runs ahead of the GPUs, into the next step too.

Memory goes back to the stream that it was allocated on, whoever else still reads it. So each tensor
that another stream reads is recorded there, which holds its memory back until that stream is done;
and before and after a step all its streams and the caller's wait for each other.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from baechi.backends.limits import limit_cuda
from baechi.backends.pytorch.rewrite import Agent
from baechi.backends.pytorch.source import Code, Job, write_serial
from baechi.backends.pytorch.streams import Streams, assign_streams, feeder, indexed, new_event
from baechi.errors import BaechiError
from baechi.frontends.pytorch.graph import draws
from baechi.ir.plan import Plan

__all__ = ["Streamed", "feed", "limit_devices"]

Values = Mapping[str, dict[str, Any]]
Callers = Mapping[torch.device, torch.cuda.Stream]


class Streamed:
    """A schedule written out for one thread that feeds the streams of all devices.

    Ops of a device run on its compute stream in the plan's order, copies to it on its lane, in step
    with the sending stream of the other device; what one waits for on another is an event. Several
    devices of the plan may be one GPU: each has streams of its own. A device may also be the CPU: its
    ops run in the issuing thread, which holds up what comes after.

    Random ops on any GPU draw from the generator of the caller's current GPU, in the order in which
    they would run there, so on GPUs of one kind dropout is that of a single one.

    Args:
        job: what to write.
        updates: what carries out each ``update`` op, given the gradient.
        names: what a probed source calls.
    """

    def __init__(
        self,
        job: Job,
        updates: Mapping[str, Callable[[torch.Tensor], None]],
        *,
        names: Mapping[str, Any] | None = None,
    ) -> None:
        self.schedule, self._job = job.schedule, job
        self._devices = {name: indexed(device) for name, device in job.devices.items()}
        self._gpus = tuple(dict.fromkeys(d for d in self._devices.values() if d.type == "cuda"))
        self._streams = assign_streams(self._devices)
        self._agents = [self._stream(agent) for agent in self.schedule.agents]
        owner = [self._stream(action.agent) for action in self.schedule.actions]
        self._events = {i: new_event() for i in self.schedule.awaited if owner[i] is not None}
        self._used = self._used_streams()
        self._turn = new_event() if self._used else None
        self._inputs = _inputs(job)
        self._drawing = _drawing(job, self._devices)
        self._current: torch.cuda.Stream | None = None
        calls = {"USE": self._use, "WAIT": self._wait, "MARK": self._mark, "COPY": self._copy, "UPDATES": updates}
        self.code: Code = write_serial(job, {**calls, **(names or {})})

    def run(self, values: Values, kept: Values | None = None) -> dict[str, Any]:
        """Issue one run; what the caller then puts on its current streams comes after it.

        Args:
            values: what is present, by device; it is taken out.
            kept: filled with what a later part needs, by device.

        Returns:
            The results by tensor name; their numbers are there when the GPUs have come so far.

        Raises:
            BaechiError: B601 when an op cannot be issued. What fails on a GPU later comes up where
                the caller next waits for it, as in plain torch.
        """
        results = self._job.given_results(values)
        callers = {gpu: torch.cuda.current_stream(gpu) for gpu in self._gpus}
        self._record_inputs(values)
        with _restored(callers), _one_generator(self._drawing):
            self._begin(callers)
            try:
                self._call(values, {} if kept is None else kept, results)
            except BaseException:
                with contextlib.suppress(RuntimeError):  # a GPU that has failed takes no more work
                    self._end(callers)
                raise
            self._end(callers)
        for result in results.values():
            if (stream := callers.get(result.device)) is not None:
                result.record_stream(stream)
        return results

    def _call(self, values: Values, kept: Values, results: dict[str, Any]) -> None:
        try:
            with torch.no_grad():
                self.code.call(values, kept, results)
        except Exception as error:  # whatever a kernel raises, with the op that raised it
            raise self._explain(error) from error

    def _record_inputs(self, values: Values) -> None:
        """Inputs may lie in the memory of any stream, and the step may hold the last reference to them."""
        for device, tensors in self._inputs.items():
            if (streams := self._streams.get(device)) is not None:
                for tensor in tensors:
                    values[device][tensor].record_stream(streams.compute)

    def _begin(self, callers: Callers) -> None:
        """All streams wait for all that the caller has issued on any GPU, the last step included."""
        if self._turn is None:
            return
        first, *others = self._used
        for stream in callers.values():
            first.wait_stream(stream)
        self._turn.record(first)
        for stream in others:
            stream.wait_event(self._turn)

    def _end(self, callers: Callers) -> None:
        """The caller's streams wait for all streams."""
        if self._turn is None:
            return
        first, *others = self._used
        for stream in others:
            first.wait_stream(stream)
        self._turn.record(first)
        for stream in callers.values():
            stream.wait_event(self._turn)

    def _stream(self, agent: Agent) -> torch.cuda.Stream | None:
        if (streams := self._streams.get(agent.device)) is None:
            return None
        return streams.compute if agent.work == "compute" else streams.lane

    def _used_streams(self) -> tuple[torch.cuda.Stream, ...]:
        sources = (a.transfer[1] for a in self.schedule.actions if a.transfer is not None)
        senders = [self._streams[name].sender for name in sources if name in self._streams]
        return tuple(dict.fromkeys(s for s in (*self._agents, *senders) if s is not None))

    def _use(self, agent: int) -> None:
        self._current = self._agents[agent]
        if self._current is not None:
            torch.cuda.set_stream(self._current)

    def _wait(self, action: int) -> None:
        event = self._events.get(action)
        if event is None:
            return
        if self._current is None:
            event.synchronize()
        else:
            self._current.wait_event(event)

    def _mark(self, action: int) -> None:
        if action in self._events and self._current is not None:
            self._events[action].record(self._current)

    def _copy(self, tensor: torch.Tensor, source: str, destination: str) -> torch.Tensor:
        """Copy on the lane of the destination, which is in use and has waited for the tensor."""
        sender, receiver = self._streams.get(source), self._streams.get(destination)
        device = self._devices[destination]
        if receiver is None:
            if sender is not None:
                torch.cuda.set_stream(sender.sender)
            return tensor.to(device, copy=True)
        if sender is None:
            copied = torch.empty_like(tensor, device=device)
            torch.ops.aten.copy_.default(copied, tensor.pin_memory(), True)
        elif self._devices[source] == device:
            copied = tensor.clone()
            tensor.record_stream(receiver.lane)
        else:
            copied = _send(tensor, sender, receiver, device)
        copied.record_stream(receiver.compute)
        return copied

    def _explain(self, error: Exception) -> BaechiError:
        i = self.code.action_of(error)
        where = "the step" if i is None else str(self.schedule.actions[i])
        return BaechiError("B601", f"{where} failed: {type(error).__name__}: {error}")


def feed(value: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on a device; one from the host gets there without waiting for what the GPU has to do.

    On the caller's stream the copy would come after the steps that are under way, and the caller
    would wait for them. The copy has ended when this returns: the value may be overwritten.

    Example:
        >>> feed(torch.ones(2), torch.device("cpu"))
        tensor([1., 1.])
    """
    if device.type != "cuda" or value.device.type == "cuda":
        return value.to(device)
    gpu = indexed(device)
    with torch.cuda.stream(feeder(gpu)):
        moved = value.to(gpu)
    moved.record_stream(torch.cuda.current_stream(gpu))
    return moved


def limit_devices(plan: Plan, devices: Mapping[str, torch.device]) -> dict[torch.device, int]:
    """Keep the process, on each GPU, to the caps of the plan's devices there, beside what it holds already.

    An allocation beyond raises ``torch.OutOfMemoryError``, as on a GPU of that size; the allocator
    first waits for memory that is on its way back. What CUDA itself takes is not counted.

    Args:
        devices: the torch device by device name.

    Returns:
        By GPU, the bytes that the process may hold there now.
    """
    caps: dict[torch.device, int] = {}
    for name, device in devices.items():
        if device.type == "cuda" and name in plan.cluster.device:
            gpu = indexed(device)
            caps[gpu] = caps.get(gpu, torch.cuda.memory_allocated(gpu)) + plan.cluster.device[name].cap
    limit_cuda(caps)
    return caps


def _send(tensor: torch.Tensor, source: Streams, destination: Streams, device: torch.device) -> torch.Tensor:
    """Copy from one GPU to another.

    Torch copies on the current stream of the source, before which that one waits for the current
    stream of the destination, and after which the latter waits for it. Only what it must gather
    first, without access between peers, it reads before.
    """
    if not tensor.is_contiguous():
        source.sender.wait_stream(destination.lane)
    torch.cuda.set_stream(source.sender)
    copied = torch.empty_like(tensor, device=device)
    torch.ops.aten.copy_.default(copied, tensor, True)
    tensor.record_stream(source.sender)
    return copied


@contextlib.contextmanager
def _restored(callers: Callers) -> Iterator[None]:
    """Leave the current device and its streams as they were."""
    current = torch.cuda.current_device() if callers else None
    try:
        yield
    finally:
        for stream in callers.values():
            torch.cuda.set_stream(stream)
        if current is not None:
            torch.cuda.set_device(current)


@contextlib.contextmanager
def _one_generator(gpus: tuple[int, ...]) -> Iterator[None]:
    """Let the generators of these GPUs share the state, seed and offset, of that of the current GPU.

    A kernel takes both when it is issued, on the host. Which numbers it makes of them depends on
    nothing else but the number of its threads, which is that of the GPU's processors at most.
    """
    generators = [torch.cuda.default_generators[i] for i in gpus]
    own = [generator.graphsafe_get_state() for generator in generators]
    if generators:
        shared = torch.cuda.default_generators[torch.cuda.current_device()].graphsafe_get_state()
        for generator in generators:
            generator.graphsafe_set_state(shared)
    try:
        yield
    finally:
        for generator, state in zip(generators, own, strict=True):
            generator.graphsafe_set_state(state)


def _drawing(job: Job, devices: Mapping[str, torch.device]) -> tuple[int, ...]:
    """The GPUs on which random numbers are drawn."""
    nodes = job.program.nodes
    random = (a for a in job.schedule.actions if any(draws(node) for node in nodes.get(a.op, ())))
    found = dict.fromkeys(devices[a.agent.device] for a in random)
    return tuple(d.index for d in found if d.type == "cuda")


def _inputs(job: Job) -> dict[str, tuple[str, ...]]:
    """By device, what is present for one run only."""
    producer = job.program.graph.producer
    return {
        device: tuple(t for t in tensors if producer[t].kind in ("input", "tangent"))
        for device, tensors in job.schedule.present.items()
    }
