"""What every page of ours has: scripts that cannot break out, and a policy that allows them and nothing else."""

import base64
import hashlib
from collections.abc import Sequence

__all__ = ["closed", "policy_of"]

_POLICY = "default-src 'none'; script-src {}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"


def policy_of(scripts: Sequence[str]) -> str:
    """What a page with these scripts may do: run them, and no more."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    return _POLICY.format(" ".join(f"'sha256-{digest}'" for digest in digests))


def closed(script: str) -> str:
    """A script that cannot end the element that it stands in; inside strings the backslash means nothing."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--").replace("\r\n", "\n")
