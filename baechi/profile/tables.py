"""Measured op times in a file: read, written whole, and how much of a graph they cover."""

import json
import os
import platform
from pathlib import Path

from baechi.cost.compute import op_seconds
from baechi.cost.table import CostTable
from baechi.document import Entry, load_json
from baechi.errors import BaechiError
from baechi.files import write_atomic
from baechi.ir.cluster import Device
from baechi.ir.graph import Graph
from baechi.profile.machine import cache_directory

__all__ = ["TABLE_SCHEMA", "measured_share", "read_table", "write_table"]

TABLE_SCHEMA = "baechi/table/1"


def read_table(path: str | Path | None = None, *, missing_ok: bool = False) -> CostTable:
    """Read measured op times.

    Args:
        path: the file; this machine's own in `cache_directory` when None, which need not be there
            and does not count when another machine wrote it.
        missing_ok: a file that is not there gives an empty table.

    Raises:
        BaechiError: B309 when the file cannot be read, B310 when it is malformed.
    """
    file = _default() if path is None else Path(path)
    if not file.exists() and (path is None or missing_ok):
        return CostTable()
    root = load_json(file, "B310", missing="B309", malformed="B310")
    if root.table().get("schema") != TABLE_SCHEMA:
        raise root.error(f'the schema is {json.dumps(root.table().get("schema"))}, not "{TABLE_SCHEMA}"')
    root.only(("schema", "machine", "seconds"))
    if path is None and root.at("machine").text() != _machine():
        return CostTable()
    kinds = root.at("seconds").entries()
    return CostTable({kind: {key: _seconds(e) for key, e in times.entries()} for kind, times in kinds})


def _seconds(entry: Entry) -> float:
    if entry.number() < 0:
        raise entry.expected("a time of at least 0 seconds")
    return float(entry.number())


def write_table(table: CostTable, path: str | Path | None = None) -> Path:
    """Write measured op times, whole or not at all, and return the file.

    Args:
        table: the times.
        path: the file; this machine's own when None.

    Raises:
        BaechiError: B404 when it cannot be written.
    """
    file = _default() if path is None else Path(path)
    if path is None:
        _make(file.parent)
    data = {"schema": TABLE_SCHEMA, "machine": _machine(), "seconds": {k: dict(v) for k, v in table.seconds.items()}}
    write_atomic(file, json.dumps(data, indent=1) + "\n")
    return file


def measured_share(graph: Graph, device: Device, table: CostTable) -> tuple[int, float]:
    """How many ops of a graph have a time measured on devices of this type, and their share of its time."""
    known = table.seconds.get(device.type, {})
    count, measured, total = 0, 0.0, 0.0
    for op in graph.ops:
        seconds = op_seconds(op, device, table)
        total += seconds
        if op.seconds is None and op.key in known:
            count += 1
            measured += seconds
    return count, measured / total if total else 0.0


def _default() -> Path:
    return cache_directory() / "ops.json"


def _machine() -> str:
    return f"{platform.node()}/{platform.machine()}/{os.cpu_count()}"


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BaechiError("B404", f"cannot write {directory}: {error.strerror or error}") from None
