"""Who is there: the layout that all peers of a run of clusters share, and which clusters each average is of."""

import threading
from typing import Any

from baechi.replicas.cluster.body import Ended
from baechi.replicas.ravnest.layout import Layout

__all__ = ["Roll"]

_PATIENCE_SECONDS = 600.0


class Roll:
    """What peers ask before and after an average; each call may wait for others.

    A ring's mean counts when all its members that live have it, of the same members: until then each keeps what it had.
    """

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._layout: Layout | Ended | None = None
        self._gone: set[int] = set()
        self._claims: dict[tuple[int, int], dict[int, tuple[int, ...]]] = {}
        self._settled: dict[tuple[int, int], tuple[int, ...]] = {}

    def publish(self, layout: Layout | Ended) -> None:
        """The clusters that one peer has formed, or why there are none."""
        with self._news:
            self._layout = layout
            self._news.notify_all()

    def abandon(self, why: Ended) -> None:
        """There will be no clusters, if there are none yet."""
        with self._news:
            self._layout = self._layout or why
            self._news.notify_all()

    def layout(self) -> Layout | Ended:
        """Wait for the clusters, or for what the peer that forms them ran into."""
        with self._news:
            self._news.wait_for(lambda: self._layout is not None, _PATIENCE_SECONDS)
            return self._layout or Ended("B803", "no peer has formed clusters", "does each call join_cluster?")

    def lose(self, cluster: int) -> None:
        """A cluster has lost a peer: averages go on without it."""
        with self._news:
            self._gone.add(cluster)
            self._news.notify_all()

    def living(self) -> tuple[int, ...]:
        """The clusters that are whole."""
        with self._news:
            return self._living()

    def settle(self, turn: int, ring: int, cluster: int, members: tuple[int, ...]) -> tuple[int, ...]:
        """Wait until all members of a ring have its mean.

        Args:
            turn: which average.
            ring: of which slice.
            cluster: who asks.
            members: the clusters that its mean is of.

        Returns:
            The same members when the mean counts, others when the ring is to start again with these.
        """
        key = turn, ring
        with self._news:
            claims = self._claims.setdefault(key, {})
            claims[cluster] = members
            while key not in self._settled and self._living() == members:
                if all(claims.get(c) == members for c in members):
                    self._settled[key] = members
                    self._news.notify_all()
                    break
                self._news.notify_all()
                self._news.wait()
            return self._settled.get(key, self._living())

    def status(self) -> dict[str, Any]:
        """What a driver shows."""
        with self._news:
            layout = self._layout if isinstance(self._layout, Layout) else None
            return {"layout": layout, "gone": tuple(sorted(self._gone))}

    def _living(self) -> tuple[int, ...]:
        assert isinstance(self._layout, Layout)
        return tuple(c for c in range(len(self._layout.peers)) if c not in self._gone)
