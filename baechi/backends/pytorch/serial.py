"""Run a schedule in the calling thread, devices taking turns: for measuring, and for checking sources."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from baechi.backends.pytorch.source import Code, Job, write_serial

__all__ = ["Serial"]


class Serial:
    """A schedule written out for one thread.

    Args:
        job: what to write; all its devices are the CPU.
        updates: what carries out each ``update`` op, given the gradient.
        names: what the source calls besides, such as ``ENTER`` and ``LEAVE``.
    """

    def __init__(
        self,
        job: Job,
        updates: Mapping[str, Callable[[torch.Tensor], None]],
        *,
        names: Mapping[str, Any] | None = None,
    ) -> None:
        self.schedule, self._job = job.schedule, job
        self.code: Code = write_serial(job, {"COPY": _copy, "UPDATES": updates, **(names or {})})

    def run(self, values: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        """Run once on one core; what a kernel raises comes as it is."""
        results = self._job.given_results(values)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.inference_mode():
                self.code.call(values, {}, results)
        finally:
            torch.set_num_threads(threads)
        return results


def _copy(tensor: torch.Tensor, _source: str, _destination: str) -> torch.Tensor:
    return tensor.clone()
