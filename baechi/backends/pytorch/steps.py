"""Directories of checkpoints: one for each step, named when it is whole."""

import os
import re
import shutil
from pathlib import Path

__all__ = ["METADATA", "PLAIN", "fresh", "latest", "prune", "publish", "step_directory"]

METADATA, PLAIN = ".metadata", "plain.pt"
_STEP = re.compile(r"step-(\d{8,})")
_UNNAMED = re.compile(r"\.step-\d{8,}\.(partial|old)")


def step_directory(root: str | Path, step: int) -> Path:
    """Where the checkpoint after so many steps goes.

    Example:
        >>> step_directory("runs", 10).name
        'step-00000010'
    """
    return Path(root) / f"step-{step:08d}"


def latest(root: str | Path) -> Path | None:
    """The whole checkpoint of the highest step in a directory, or None."""
    return next(reversed(_whole(Path(root))), None)


def prune(root: str | Path, keep: int = 2) -> tuple[Path, ...]:
    """Remove all but the newest checkpoints, and what killed processes left; call it on one process only.

    Args:
        root: the directory of the checkpoints.
        keep: how many to keep, at least one.

    Returns:
        The checkpoints that were removed.
    """
    whole = _whole(Path(root))
    removed = whole[: max(0, len(whole) - max(keep, 1))]
    left = [p for p in sorted(Path(root).iterdir()) if _UNNAMED.fullmatch(p.name)] if whole else []
    for path in (*removed, *left):
        shutil.rmtree(path, ignore_errors=True)
    return tuple(removed)


def _whole(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    steps = [(int(m[1]), p) for p in root.iterdir() if (m := _STEP.fullmatch(p.name))]
    return [p for _, p in sorted(steps) if (p / METADATA).is_file() and (p / PLAIN).is_file()]


def fresh(partial: Path) -> None:
    """Make a directory to write into, without what a killed process left there."""
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)


def publish(partial: Path, target: Path) -> None:
    """Give a directory that is whole its name, in place of one that had it."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    _sync(partial)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
