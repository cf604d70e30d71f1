"""How TensorFlow is told to leave a placed graph as it is, and what it ran; the only user of what is not its public API."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context

__all__ = ["Options", "keep_alive", "partitions"]


class Options:
    """The settings under which a placed step is called, of this thread alone.

    Soft placement is off. Grappler is too when the step is on several devices: it would fuse ops across
    them, silently. On one device it does what it does for any `tf.function`.

    Args:
        rewrites: whether grappler may rewrite the graph.
    """

    def __init__(self, *, rewrites: bool) -> None:
        self._rewrites = rewrites
        self._made: Any = None

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within, functions are called and traced under these settings."""
        state = context.context()
        before = state.function_call_options
        if self._made is None:
            self._made = self._options(before)
        state.function_call_options = self._made
        try:
            yield
        finally:
            state.function_call_options = before

    def _options(self, before: Any) -> Any:
        config = tf.compat.v1.ConfigProto()
        config.CopyFrom(context.context().config)
        config.allow_soft_placement = False
        if not self._rewrites:
            config.graph_options.rewrite_options.disable_meta_optimizer = True
        return context.FunctionCallOptions(before.executor_type, config)


def keep_alive(operations: list[Any]) -> None:
    """Have these operations run whenever the function under construction does, whatever it returns."""
    graph = tf.compat.v1.get_default_graph()
    graph.control_outputs.extend(operations)


@contextmanager
def partitions() -> Iterator[list[Any]]:
    """Collect, at the end of the block, the graph of each device as it was run inside, of the largest function."""
    found: list[Any] = []
    context.enable_run_metadata()
    context.export_run_metadata()  # what was collected before
    try:
        yield found
        functions = [list(f.partition_graphs) for f in context.export_run_metadata().function_graphs]
        found.extend(max(functions, key=lambda graphs: sum(len(g.node) for g in graphs), default=[]))
    finally:
        context.disable_run_metadata()
