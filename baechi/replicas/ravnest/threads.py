"""The asynchronous pipeline carried by threads of this process: the same workers under the real clock."""

import threading
import time
from collections.abc import Sequence

from baechi.replicas.ravnest.pipeline import Batch, Carried, Parcel, Span, Worker

__all__ = ["run_threads"]


def run_threads(workers: Sequence[Worker], batches: Sequence[Batch], first: int = 0) -> Carried:
    """Carry micro-batches through a pipeline, a thread for each stage, until all are back.

    Which weights a gradient meets depends on how the threads run, within the bounds of the pipeline; with one stage
    nothing does. Stages that draw random numbers take turns going forward, as torch has one source of them.

    Args:
        workers: of each stage.
        batches: inputs and target of each micro-batch.
        first: number of the first micro-batch.

    Raises:
        BaseException: what a stage raises; the other threads stop.
    """
    crew = _Crew(workers, len(batches))
    for i, (inputs, target) in enumerate(batches):
        workers[0].accept(Parcel(0, first + i, inputs, False, target))
    threads = [threading.Thread(target=crew.loop, args=(w,), name=f"stage {w}") for w in range(len(workers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if crew.error is not None:
        raise crew.error
    losses = tuple(workers[-1].losses[first + i] for i in range(len(batches)))
    spans = tuple(sorted(crew.spans, key=lambda span: (span.start, span.worker)))
    return Carried(losses, spans, crew.most, max((s.end for s in spans), default=0.0), tuple(crew.sent))


class _Crew:
    """What the threads share; a worker's queues change only under the lock."""

    def __init__(self, workers: Sequence[Worker], count: int) -> None:
        self._workers, self._left = workers, count
        self._news = threading.Condition()
        self._began = time.perf_counter()
        self.spans: list[Span] = []
        self.sent = [0] * len(workers)
        self.most = 0
        self.error: BaseException | None = None

    def loop(self, index: int) -> None:
        """Work until nothing is left."""
        try:
            while (parcel := self._next(index)) is not None:
                start = time.perf_counter() - self._began
                out = self._workers[index].work(parcel)
                self._done(index, parcel, out, start)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller's thread raises it
            with self._news:
                self.error = self.error or error
                self._news.notify_all()

    def _next(self, index: int) -> Parcel | None:
        with self._news:
            while self._left and self.error is None:
                parcel = self._workers[index].take()
                if parcel is not None:
                    self.most = max(self.most, self._workers[0].under_way)
                    return parcel
                self._news.wait()
        return None

    def _done(self, index: int, parcel: Parcel, out: Parcel | None, start: float) -> None:
        with self._news:
            self.spans.append(Span(index, parcel.micro, parcel.is_back, start, time.perf_counter() - self._began))
            if out is not None:
                self.sent[index] += out.nbytes
                self._workers[out.to].accept(out)
            if index == 0 and out is None:
                self._left -= 1
            self._news.notify_all()
