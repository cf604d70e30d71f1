"""Which lines are the user's, and how they are named."""

import sysconfig
from pathlib import Path
from types import ModuleType, TracebackType

import baechi

__all__ = ["Lines"]


class Lines:
    """The user's lines among those of a framework, of Python and of this package.

    Args:
        frameworks: packages whose lines are hidden.
        generated: what the names of files say that a framework wrote; nothing when it writes none.

    Example:
        >>> import re
        >>> Lines(re).name(re.__file__), Lines(re).name("<stdin>")
        ('', '<stdin>')
    """

    def __init__(self, *frameworks: ModuleType, generated: str = "") -> None:
        ours = Path(__file__).parent, Path(baechi.__file__).parent / "backends"
        packages = (Path(str(package.__file__)).parent for package in frameworks)
        self._hidden = tuple(f"{folder.resolve()}/" for folder in (*ours, *packages))
        self._python = str(Path(sysconfig.get_paths()["stdlib"]).resolve()) + "/"
        self._generated = generated
        self._known: dict[str, str] = {}

    def name(self, filename: str) -> str:
        """A file's name as it is printed; empty for a file that is not the user's."""
        found = self._known.get(filename)
        if found is None:
            found = self._known[filename] = self._name(filename)
        return found

    def _name(self, filename: str) -> str:
        if filename.startswith("<"):
            return filename if filename.startswith(("<ipython", "<stdin")) else ""
        path = str(Path(filename).resolve())
        if path.startswith(self._hidden) or (self._generated and self._generated in path):
            return ""
        if "-packages/" in path:
            return path.rpartition("-packages/")[2]
        return "" if path.startswith(self._python) else path.removeprefix(f"{Path.cwd()}/")

    def innermost(self, traceback: TracebackType | None) -> str:
        """``file:line`` of the innermost frame that is the user's, or nothing."""
        line = ""
        while traceback is not None:
            if name := self.name(traceback.tb_frame.f_code.co_filename):
                line = f"{name}:{traceback.tb_lineno}"
            traceback = traceback.tb_next
        return line
