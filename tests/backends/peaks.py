"""Memory that a call takes."""

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak(run: Callable[[], object]) -> int:
    """Most bytes that torch's CPU allocator holds during the call, above those held before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        kept = run()
    held = most = 0
    events = [e for e in measured.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    del kept
    return most
