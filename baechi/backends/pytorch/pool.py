"""Threads that all plans of one module share."""

import threading

from baechi.backends.pytorch.threads import Crew

__all__ = ["Threads"]


class Threads:
    """Threads that the forwards of one module share: started when first needed, one call at a time."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._crew: Crew | None = None

    def crew(self, size: int) -> Crew:
        """At least that many threads; the same ones as long as they suffice."""
        if self._crew is None or len(self._crew.threads) < size:
            self.close()
            self._crew = Crew([f"placed module {i}" for i in range(size)])
        return self._crew

    def close(self) -> None:
        """End the threads; the next call starts new ones."""
        if self._crew is not None:
            self._crew.close()
            self._crew = None
