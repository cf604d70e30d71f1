"""The entry point: parses arguments, runs a command, and turns what happens into an exit code.

Exit codes: 0 yes, 1 the answer is no, 2 misuse, 101 a bug of ours, 130 interrupted, 141 nobody reads the output.
"""

import argparse
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import baechi
from baechi.cli import compare, devices, doctor, estimate, explain, graph, place, profile, replicas, report, run, trace
from baechi.cli.output import say
from baechi.errors import BaechiError

__all__ = ["main"]

_COMMANDS = (place, run, compare, estimate, explain, profile, report, trace, graph, replicas, devices, doctor)
_BUG, _INTERRUPTED, _UNREAD = 101, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: its arguments; those of the process, which it then may start anew with an environment
            fit for measuring, when None.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 is no reason to stop
    try:
        args = _parser().parse_args(argv)
        args.is_process = argv is None
        return int(args.command(args))
    except BaechiError as error:
        if os.environ.get("BAECHI_DEBUG"):
            traceback.print_exception(error)
        say(str(error))
        return error.exit_code
    except BrokenPipeError:
        return _unread()
    except KeyboardInterrupt:
        say("interrupted")
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last resort: whatever it is, it is a bug of ours, and said so
        return _bug(error)


class _Parser(argparse.ArgumentParser):
    """argparse whose errors look like all others; a group of commands may have one for when none is named."""

    default: tuple[str, frozenset[str]] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does."""
        if self.default is not None and args is not None:
            name, known = self.default
            if not args or args[0] not in known:
                args = [name, *args]
        return super().parse_known_args(args, namespace)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False, formatter_class=_Formatter)

    def error(self, message: str) -> NoReturn:
        raise BaechiError("B108", message, help=f"see {self.prog} --help")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=79)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="baechi", description="Place the training graph of a model on devices with little memory.")
    parser.add_argument("--version", action="version", version=f"baechi {baechi.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for module in _COMMANDS:
        _add(commands, module)
    return parser


def _add(commands: Any, module: Any) -> None:
    """A command, or a group of them: a package with ``COMMANDS``, and with the name of one in ``DEFAULT``."""
    name, what = module.__name__.rpartition(".")[2], (module.__doc__ or "").split("\n\n")[0]
    command = commands.add_parser(name, help=what[0].lower() + what[1:].rstrip("."), description=module.__doc__)
    if hasattr(module, "COMMANDS"):
        inner = command.add_subparsers(metavar="WHAT", required=True, parser_class=_Parser)
        for part in module.COMMANDS:
            _add(inner, part)
        command.default = (module.DEFAULT, frozenset((*inner.choices, "-h", "--help")))
        return
    module.configure(command)
    command.add_argument("--json", action="store_true", help="print one JSON object with a schema version")
    command.set_defaults(command=module.execute)


def _unread() -> int:
    """Let the interpreter's own flush at exit find an open file."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123 - /dev/null is no path of ours
        try:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        except (OSError, ValueError):
            return _UNREAD  # stdout is no file, as under a test
    return _UNREAD


def _bug(error: Exception) -> int:
    if os.environ.get("BAECHI_DEBUG"):
        traceback.print_exception(error)
    first = (str(error).splitlines() or [""])[0]
    say(f"error[B999]: this is a bug of baechi: {type(error).__name__}: {first}")
    if not os.environ.get("BAECHI_DEBUG"):
        say("  help: set BAECHI_DEBUG=1 for the traceback")
    return _BUG
