"""Checkpoints of a run: a directory for each moment, in it a file of each process that takes part."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from baechi.errors import BaechiError

__all__ = ["Checkpoints"]

_KEPT = 2


class Checkpoints:
    """A process's files in a directory of checkpoints.

    Args:
        directory: of the run.
        own: name of this process's file.
        names: of the files of all processes; a moment counts when all are there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = Checkpoints(folder, "rank-0.pt", ("rank-0.pt",))
        ...     made.save(7, {"done": 7})
        ...     (made.load(made.newest())["done"], made.newest().name)
        (7, 'step-000000007')
    """

    def __init__(self, directory: str, own: str, names: tuple[str, ...]) -> None:
        self._directory, self._own, self._names = Path(directory), own, names

    def save(self, done: int, state: dict[str, Any]) -> None:
        """Write this process's file of a moment, whole or not at all; those before the last two go.

        Args:
            done: the moment's number.
            state: tensors and plain values.

        Raises:
            BaechiError: B804 when nothing can be written.
        """
        import torch

        folder = self._directory / f"step-{done:09d}"
        path = folder / self._own
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(state, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
        except OSError as error:
            what = f"no checkpoint can be written to '{folder}': {error.strerror or error}"
            raise BaechiError("B804", what, help="is the disk full?") from None
        self._prune()

    def newest(self) -> Path | None:
        """The newest directory that all processes have written to."""
        return next(reversed(self._whole()), None)

    def load(self, folder: Path) -> dict[str, Any]:
        """What this process has written there.

        Raises:
            BaechiError: B804 on a file that cannot be read.
        """
        import torch

        path = folder / self._own
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True)
        except Exception as error:  # noqa: BLE001 - whatever torch finds wrong with a file
            raise BaechiError("B804", f"'{path}' cannot be read: {error}", help="delete its directory") from None
        return state

    def _all(self) -> list[Path]:
        return sorted(self._directory.glob("step-*"))

    def _whole(self) -> list[Path]:
        return [folder for folder in self._all() if all((folder / name).exists() for name in self._names)]

    def _prune(self) -> None:
        kept = self._whole()[-_KEPT:]
        for old in self._all():
            if kept and old.name < kept[0].name:
                (old / self._own).unlink(missing_ok=True)
                with suppress(OSError):  # another's file is there still, or it has just deleted the last one
                    old.rmdir()
