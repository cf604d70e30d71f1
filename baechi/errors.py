"""Every error that baechi reports to a person, with its code, what happened and what to do.

Codes: B1xx targets and options, B2xx graphs, B3xx clusters and costs, B4xx plans,
B5xx placement, B6xx running, B7xx extraction.

Example:
    >>> print(BaechiError("B101", "no model 'inception_v9'", help="one of: inception_v3"))
    error[B101]: no model 'inception_v9'
      help: one of: inception_v3
"""

__all__ = ["BaechiError", "Infeasible"]


class BaechiError(Exception):
    """A problem the user can act on.

    Args:
        code: ``B`` and three digits; stable, so that people can search for it.
        what: one sentence: what is wrong, with what.
        help: what to do about it; empty when there is nothing to add.
    """

    exit_code = 2

    def __init__(self, code: str, what: str, *, help: str = "") -> None:
        super().__init__(what)
        self.code, self.what, self.help = code, what, help

    def __str__(self) -> str:
        lines = [f"error[{self.code}]: {self.what}"]
        if self.help:
            lines.append("  help: " + self.help.replace("\n", "\n        "))
        return "\n".join(lines)


class Infeasible(BaechiError):
    """No plan fits.

    Args:
        proved: true when a bound shows that no plan can exist, false when none was found.
    """

    exit_code = 1

    def __init__(self, code: str, what: str, *, help: str = "", proved: bool) -> None:
        super().__init__(code, what, help=help)
        self.proved = proved
