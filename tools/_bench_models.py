"""The paper's models, with the expert's split and accelerate's device map among the placers."""

import importlib
import importlib.util
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from _bench_table import Case, Method, NotTried

from baechi.api import resolve
from baechi.config import parse_cluster
from baechi.cost.problem import Problem
from baechi.errors import BaechiError
from baechi.ir.graph import Graph
from baechi.ir.json import read_graph, write_graph
from baechi.models.base import get
from baechi.placers import Expert
from baechi.placers.base import best_of
from baechi.placers.variants import Variant
from baechi.sim.evaluate import Schedule
from baechi.target import load_target

__all__ = ["accelerate_methods", "model_cases"]

DEVICES = 4


def model_cases(names: list[str], memories: list[str], batch: int | None, cache: Path | None) -> Iterator[Case]:
    """Each model on four equal GPUs of each memory; `cache` keeps captured graphs between runs."""
    for name in names:
        graph = _captured(name, batch, cache)
        for memory in memories:
            cluster = resolve(graph, parse_cluster(f"{DEVICES}xrtx2080:{memory}"))
            yield Case(f"{name}, {memory}", Problem(graph, cluster))


def _captured(name: str, batch: int | None, cache: Path | None) -> Graph:
    kept = cache / f"{name}{batch or ''}.json" if cache else None
    if kept is not None and kept.exists():
        return read_graph(kept)
    graph = load_target(f"models:{name}", batch=batch).with_expert(DEVICES)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_graph(graph, kept)
    return graph


def accelerate_methods() -> Iterator[Method]:
    """accelerate's maps by the size of the weights: as given, and balanced, which is ``device_map="auto"``."""
    if importlib.util.find_spec("accelerate"):
        yield Method("accelerate, balanced", lambda problem: _accelerate(problem, balanced=True))
        yield Method("accelerate, sequential", lambda problem: _accelerate(problem, balanced=False))


def _accelerate(problem: Problem, *, balanced: bool) -> tuple[Schedule, float, Mapping[str, int]]:
    """Modules to devices, their ops with them; what belongs to no module follows what it reads."""
    accelerate: Any = importlib.import_module("accelerate.utils")
    torch: Any = importlib.import_module("torch")
    name = str(problem.graph.meta.get("target", {}).get("name", ""))
    try:
        spec = get(name)
    except BaechiError:
        raise NotTried("no model") from None
    with torch.device("meta"):
        model = spec.build()
    memory: dict[Any, int] = {k: d.cap for k, d in enumerate(problem.cluster.devices)}
    began = time.process_time()
    if balanced:
        memory = accelerate.get_balanced_memory(model, {**memory, "cpu": 0})
    mapped = accelerate.infer_auto_device_map(model, max_memory=memory)
    seconds = time.process_time() - began
    problem = _with_experts(problem, {path: device for path, device in mapped.items() if isinstance(device, int)})
    return best_of(problem, Expert().lifted(Variant.plain(problem), 0)).schedule, seconds, {}


def _with_experts(problem: Problem, mapped: Mapping[str, int]) -> Problem:
    graph = problem.graph.with_ops(replace(op, expert=_device_of(op.path, mapped)) for op in problem.graph.ops)
    other = Problem(graph, problem.cluster, problem.table)
    other.__dict__["arrays"] = problem.arrays
    return other


def _device_of(path: str, mapped: Mapping[str, int]) -> int | None:
    """The device of the innermost mapped module that a path is in; of a split one, that of its first part."""
    inside = path
    while inside:
        if inside in mapped:
            return mapped[inside]
        inside = inside.rpartition(".")[0]
    if "" in mapped:
        return mapped[""]
    return next((device for name, device in mapped.items() if path and name.startswith(path + ".")), None)
