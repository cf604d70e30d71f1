"""Measured op times of a TensorFlow step, by the keys of the cost table."""

import statistics
from collections.abc import Sequence
from typing import Any

from baechi.backends.plans import plan_in_program_order
from baechi.backends.tf.devices import local_name
from baechi.backends.tf.rewrite import placed_graph
from baechi.frontends.tf.program import TensorFlowProgram
from baechi.profile.tf.trace import Tracer

__all__ = ["profile_ops"]

_LEAST_RUNS = 5


def profile_ops(
    program: TensorFlowProgram, leaves: Sequence[Any], *, repeats: int = _LEAST_RUNS, warmup: int = 1
) -> dict[str, float]:
    """What each kind of op takes on one core, in seconds by `Op.key`: the least of some steps.

    The step runs whole, under TensorFlow's own tracing, which adds about 7 %, op after op on one
    thread. What others do on the machine only adds, so the least of the steps counts; of the ops with
    one key the median.

    Args:
        program: the step.
        leaves: the flattened arguments of a step.
        repeats: steps that count, at least 5.
        warmup: steps before them.

    Raises:
        BaechiError: B622 when the step uses a resource that is no variable.
    """
    plan = plan_in_program_order(program.graph, {op.name: "cpu:0" for op in program.graph.ops})
    graph_def = placed_graph(program, plan, {"cpu:0": local_name("CPU", 0)})
    least: dict[str, float] = {}
    with Tracer(program, graph_def, leaves) as tracer:
        for i in range(warmup + max(repeats, _LEAST_RUNS)):
            traced = tracer.run()
            now: dict[str, float] = {}
            for event in traced.events:
                op = program.op_of.get(event.node)
                if op is not None:
                    now[op] = now.get(op, 0.0) + event.seconds
            if i >= warmup:
                least = {op: min(seconds, least.get(op, seconds)) for op, seconds in now.items()}
    by_key: dict[str, list[float]] = {}
    for op in program.graph.ops:
        if op.key and op.name in least:
            by_key.setdefault(op.key, []).append(least[op.name])
    return {key: statistics.median(found) for key, found in by_key.items()}
