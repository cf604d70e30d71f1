"""A training step to capture and run, in each framework behind one protocol.

Nothing here imports a framework before a job of it does something.
"""

from baechi.jobs.base import DEFAULT_FRAMEWORK, FRAMEWORKS, Host, Job, Program, host_of

__all__ = ["DEFAULT_FRAMEWORK", "FRAMEWORKS", "Host", "Job", "Program", "host_of"]
