"""Calls into ortools, in a process of their own wherever TensorFlow is installed.

Both bring their own copies of the same libraries into a process, and whichever is loaded second fails to
load, or crashes later, when a solver takes symbols from the other's. So where both are installed no
process of ours that may load TensorFlow loads ortools. The other process is started when it is first
needed, and ends with this one.
"""

import atexit
import importlib
import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

__all__ = ["call_solver", "main"]

_MARK = "BAECHI_SOLVER"
Tell = Callable[..., None]


def call_solver(function: str, *args: Any, tell: Tell | None = None, **options: Any) -> Any:
    """Call a function that uses ortools, here or in the other process.

    Args:
        function: ``module:name``.
        args, options: its arguments, which can be pickled, and so can its result and what it raises.
        tell: passed on as its option ``on_progress``, when given; it is called in this process.

    Returns:
        What it returns. Ctrl-C goes to the function, wherever it is, which may return early.

    Example:
        >>> call_solver("math:hypot", 3.0, 4.0)
        5.0
    """
    if not _is_shared():
        more = options if tell is None else {**options, "on_progress": tell}
        return _function(function)(*args, **more)
    return _other().call(function, args, options, tell)


@cache
def _is_shared() -> bool:
    """Whether this process may load TensorFlow, or has."""
    return _MARK not in os.environ and importlib.util.find_spec("tensorflow") is not None


def _function(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


class _Other:
    """The process that may load ortools, as long as this one lives."""

    def __init__(self) -> None:
        path = os.pathsep.join(entry or os.curdir for entry in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main()"],
            env={**os.environ, "PYTHONPATH": path, _MARK: "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.owner = os.getpid()
        self._lock = threading.Lock()
        atexit.register(self.close)

    def call(self, function: str, args: tuple[Any, ...], options: dict[str, Any], tell: Tell | None) -> Any:
        with self._lock:
            _send(self._process.stdin, sys.path)
            _send(self._process.stdin, (function, args, options, tell is not None))
            while True:
                try:
                    kind, value = self._receive()
                    if kind == "told" and tell is not None:
                        tell(*value)
                except KeyboardInterrupt:  # Ctrl-C reaches both; a signal to this process alone is passed on
                    self._process.send_signal(signal.SIGINT)
                    continue
                if kind == "raised":
                    raise value
                if kind == "done":
                    return value

    def _receive(self) -> tuple[str, Any]:
        assert self._process.stdout is not None  # it is a pipe
        try:
            found: tuple[str, Any] = pickle.load(self._process.stdout)
        except EOFError:
            raise RuntimeError(f"the solver's process ended with exit code {self._process.wait()}") from None
        return found

    @property
    def lives(self) -> bool:
        return self.owner == os.getpid() and self._process.poll() is None

    def close(self) -> None:
        if self.owner == os.getpid():
            self._process.kill()
            self._process.communicate()


_found: list[_Other] = []
_finding = threading.Lock()


def _other() -> _Other:
    with _finding:
        if not (_found and _found[0].lives):
            _found[:] = [_Other()]
        return _found[0]


def _send(stream: Any, message: Any) -> None:
    pickle.dump(message, stream, pickle.HIGHEST_PROTOCOL)
    stream.flush()


def main() -> None:
    """Answer calls until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # but within a call: half a message would be the last
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a solver prints is no answer
    while True:
        try:
            function, args, options, tells = _message()
        except EOFError:
            return
        if tells:
            options["on_progress"] = lambda *told: _send(answers, ("told", told))
        _send(answers, _answer(function, args, options))


def _message() -> Any:
    """The path comes by itself, before what is looked for along it."""
    sys.path[:] = pickle.load(sys.stdin.buffer)
    return pickle.load(sys.stdin.buffer)


def _answer(function: str, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[str, Any]:
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return "done", _function(function)(*args, **options)
    except BaseException as error:  # noqa: BLE001 - raised again where it was called
        return "raised", error
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
