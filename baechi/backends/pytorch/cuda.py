"""Run a schedule on CUDA devices: streams for compute, for sending and for receiving, issued by one thread."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from baechi.backends.pytorch.rewrite import Agent
from baechi.backends.pytorch.source import Code, Job, write_serial
from baechi.errors import BaechiError

__all__ = ["Streamed"]

Values = Mapping[str, dict[str, Any]]


class Streamed:
    """A schedule written out for one thread that feeds the streams of all devices.

    Ops of a device run on its compute stream in the plan's order, copies to it on its receiving
    stream, in step with the sending stream of the other device; what one waits for on another is an
    event. A device of the plan may also be the CPU: its ops run in the issuing thread, which holds
    up what comes after. Random ops draw from the generator of their own device, so dropout is not
    that of one device.

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
        self._devices = dict(job.devices)
        self._streams = {
            Agent(name, work): torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            for name, device in job.devices.items()
            if device.type == "cuda"
            for work in ("compute", "lane")
        }
        self._senders = {
            name: torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            for name, device in job.devices.items()
            if device.type == "cuda"
        }
        self._agents = [self._streams.get(agent) for agent in self.schedule.agents]
        owner = [self._streams.get(action.agent) for action in self.schedule.actions]
        signals = [i for i in self.schedule.awaited if owner[i] is not None]
        self._events = {i: torch.cuda.Event() for i in signals}  # type: ignore[no-untyped-call]
        calls = {"USE": self._use, "WAIT": self._wait, "MARK": self._mark, "COPY": self._copy, "UPDATES": updates}
        self.code: Code = write_serial(job, {**calls, **(names or {})})
        self._current: torch.cuda.Stream | None = None

    def run(self, values: Values, kept: Values | None = None) -> dict[str, Any]:
        """Run once and wait for the end.

        Args:
            values: what is present, by device; it is taken out.
            kept: filled with what a later part needs, by device.

        Raises:
            BaechiError: B601 when an op fails.
        """
        results = self._job.given_results(values)
        before = {d: torch.cuda.current_stream(d) for d in self._devices.values() if d.type == "cuda"}
        for agent, stream in self._streams.items():
            stream.wait_stream(before[self._devices[agent.device]])
        try:
            with torch.no_grad():
                self.code.call(values, kept or {}, results)
        except Exception as error:  # whatever a kernel raises, with the op that raised it
            raise self._explain(error) from error
        finally:
            for stream in before.values():
                torch.cuda.set_stream(stream)
        for device in before:
            torch.cuda.synchronize(device)
        return results

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
        """Copy on a stream of each end: torch runs it on the sender's and makes the receiver's wait."""
        sender, receiver = self._senders.get(source), self._streams.get(Agent(destination, "lane"))
        device = self._devices[destination]
        if receiver is None:
            return tensor.to(device, copy=True)
        if sender is not None:
            sender.wait_stream(receiver)  # which has waited for the tensor
            torch.cuda.set_stream(sender)
            torch.cuda.set_stream(receiver)
        copied = torch.empty_like(tensor, device=device)
        torch.ops.aten.copy_.default(copied, tensor, sender is not None)
        if sender is not None:
            tensor.record_stream(sender)
        copied.record_stream(self._streams[Agent(destination)])
        return copied

    def _explain(self, error: Exception) -> BaechiError:
        i = self.code.action_of(error)
        where = "the step" if i is None else str(self.schedule.actions[i])
        return BaechiError("B601", f"{where} failed: {type(error).__name__}: {error}")
