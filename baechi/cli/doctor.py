"""Check that what baechi needs is here and works."""

import argparse

from baechi.cli.output import emit, emit_json, progress

__all__ = ["configure", "execute"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: there are none of its own."""


def execute(args: argparse.Namespace) -> int:
    """Check everything; the answer is no when something needed is missing."""
    from dataclasses import asdict

    from baechi.profile.health import examine
    from baechi.report.machine_text import doctor_text

    with progress("checking"):
        findings = examine()
    good = all(finding.good is not False for finding in findings)
    if args.json:
        emit_json({"schema": "baechi/doctor/1", "good": good, "checks": [asdict(f) for f in findings]})
    else:
        emit(doctor_text(findings))
    return 0 if good else 1
