"""Local search on schedules: compiled moves, judged first by a bound that costs one pass."""

from baechi.placers.search.descend import improve, tries_for

__all__ = ["improve", "tries_for"]
