"""What each driver does with its actors: give them cores, wait until they have started, ask how they are."""

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from baechi.errors import BaechiError

__all__ = ["POLL_SECONDS", "STATUS_PATIENCE_SECONDS", "answers", "await_started", "cores_each", "explained"]

POLL_SECONDS = 0.5
STATUS_PATIENCE_SECONDS = 5.0
_START_PATIENCE_SECONDS = 300.0
_SOME_CORE = 0.001  # on one's own machine actors share the cores, however many they are

Key = TypeVar("Key", bound=Hashable)


def cores_each(address: str | None) -> float:
    """What an actor asks of the cluster at an address, or of this machine where there is none."""
    return 1.0 if address else _SOME_CORE


def await_started(ray: Any, calls: list[Any], who: str) -> None:
    """Wait for the first answer of each actor.

    Args:
        ray: the module.
        calls: one to each actor.
        who: the actors are, in the plural.

    Raises:
        BaechiError: B806 when one has not answered for long.
    """
    ready, late = ray.wait(calls, num_returns=len(calls), timeout=_START_PATIENCE_SECONDS)
    if late:
        what = f"{len(late)} of {len(calls)} {who} did not start in {_START_PATIENCE_SECONDS:.0f} s"
        raise BaechiError("B806", what, help="has the cluster a free core for each?")
    ray.get(ready)


@contextmanager
def explained(ray: Any, who: str) -> Iterator[None]:
    """An error of Ray within is B806: `who`, in the singular, did not start."""
    try:
        yield
    except ray.exceptions.RayError as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BaechiError("B806", f"{who} did not start: {first}", help="see the logs in /tmp/ray") from error


def answers(ray: Any, calls: Mapping[Any, Key]) -> dict[Key, Any]:
    """What each call gives, by its value; without those that fail or do not answer for a while."""
    found: dict[Key, Any] = {}
    ready, _ = ray.wait(list(calls), num_returns=len(calls), timeout=STATUS_PATIENCE_SECONDS)
    for call in ready:
        with suppress(ray.exceptions.RayError):
            found[calls[call]] = ray.get(call)
    return found
